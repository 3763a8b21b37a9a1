"""What a run was, as a table for people."""

from __future__ import annotations

import shlex
from collections import Counter
from statistics import median

from chaos.checker import Fault
from chaos.plan import Plan
from chaos.run import Outcome
from chaos.server import SERVE

__all__ = ["report"]

# How much is told of what there may be a lot of.
_TOLD = 10


def report(outcome: Outcome) -> str:
    """The table; for a run that failed also what is wrong, the end of the server's log, and how to repeat it."""
    plan, tally, verdict = outcome.plan, outcome.tally, outcome.verdict
    engine = {"sqlite": f"SQLite, {plan.durability}", "memory": "memory"}.get(plan.engine, plan.engine)
    engine += ", keeps nothing" * plan.forgets + f", {plan.nodes} nodes" * (plan.nodes > 1)
    faults = verdict.findings.counts
    rows = [
        ("run", f"{plan.seconds:g} s, {engine}, {plan.clients} clients ({plan.real} real), seed {plan.seed}"),
        ("sent", f"{verdict.sent:,}"),
        ("acknowledged", f"{verdict.acknowledged:,}"),
        ("delivered", f"{verdict.delivered:,}"),
        *((fault, f"{faults[fault]:,}") for fault in Fault),
        ("missed and told", f"{verdict.told:,}" if plan.forgets or verdict.told else ""),
        ("recovered: false", f"{len(tally.unrecovered):,}"),
        *((kind, f"{tally.happened[kind]:,}") for kind in plan.misfortunes),
        ("a killed node", f"{_seconds('listens again after', tally.restarts)}{_last(tally.restarts)}"),
        ("", f"{_seconds('nine of ten clients are back after', tally.returns)}"),
        ("a drain", f"{_seconds('takes', tally.rolls)}"),
        ("reconnects", f"{tally.reconnects:,}"),
        ("repeated", f"{tally.repeats:,}"),
        ("closed with", _counted(tally.closes)),
        ("refused with", _counted(tally.errors)),
        ("rate", f"{outcome.rate:,.0f}/s acknowledged, of {plan.rate:,.0f}/s; {tally.held_back:,} held back"),
        ("a node", f"{_mebibytes(outcome.memory)} of memory at most, {_mebibytes(outcome.store)} of store at the end"),
        ("fleet", f"{outcome.load:.0%} of a core; at rest {outcome.rest:.1f} s after the last publication"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}" for name, value in rows if value]
    return "\n".join(lines + ([] if outcome.passed else _failure(outcome)))


def _failure(outcome: Outcome) -> list[str]:
    plan, tally, verdict = outcome.plan, outcome.tally, outcome.verdict
    lines = ["", "FAILED"]
    if verdict.unacknowledged:
        lines.append(f"never acknowledged: {verdict.unacknowledged:,}")
    if outcome.missing:
        lines.append(f"never happened: {', '.join(outcome.missing)}")
    if plan.forgets and not tally.unrecovered:
        lines.append("an engine that forgets, and nobody was told of a gap")
    for title, texts in (
        ("late", outcome.late),
        ("not recovered", [] if plan.forgets else tally.unrecovered),
        ("nonsense", tally.nonsense),
        *((fault.value, [text for kind, text in verdict.findings.told if kind is fault]) for fault in Fault),
    ):
        lines += [f"{title}: {text}" for text in texts[:_TOLD]]
    lines += ["", "The server's log ends with", outcome.log_tail or "nothing", ""]
    lines += [f"Repeat it with: make chaos CHAOS='{_options(plan)}'", f"Its data and its log: {plan.directory}"]
    return lines


def _options(plan: Plan) -> str:
    """What makes this plan again, on the command line."""
    options = [f"--engine {plan.engine}", *(["--forgets"] if plan.forgets else [])]
    options += [f"--seed {plan.seed}", f"--seconds {plan.seconds:g}", f"--rate {plan.rate:g}"]
    options += [f"--clients {plan.clients}", f"--real {plan.real}"]
    options += [f"--durability {plan.durability}"] if plan.engine == "sqlite" else [f"--nodes {plan.nodes}"]
    options += [] if plan.hands else ["--no-kills"]
    options += [f"--server {shlex.quote(shlex.join(plan.command))}"] if plan.command != SERVE else []
    return " ".join(options + (["--", *plan.options] if plan.options else []))


def _seconds(words: str, values: list[float]) -> str:
    return f"{words} {median(values):.1f} s, at most {max(values):.1f} s" if values else ""


def _last(values: list[float]) -> str:
    """The more there is in the store, the longer it takes to look through it."""
    return f", {values[-1]:.1f} s at the end" if values else ""


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _counted(counts: Counter[int] | Counter[str]) -> str:
    return ", ".join(f"{code} × {count:,}" for code, count in sorted(counts.items(), key=str))
