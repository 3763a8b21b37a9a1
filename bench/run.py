"""Measures Hubbub beside the least server possible, and prints what each costs and which budgets are kept.

python bench/run.py                      all questions, some five minutes
python bench/run.py fanout unicast       only these
python bench/run.py --check              exit status 1 where a budget is missed
python bench/run.py --quick              a few messages, to see that everything works; judges nothing
python bench/run.py -- --OPTION VALUE    with these further options of `hubbub serve`
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from statistics import median

import compression
import crowd
import durable
import fanout
import handshakes
import harness
import idle
import large
import latency
import limits
import nodes
import planning
import storm
import unicast

QUESTIONS = {
    "fanout": fanout.ask,
    "unicast": unicast.ask,
    "limits": limits.ask,
    "compression": compression.ask,
    "latency": latency.ask,
    "idle": idle.ask,
    "large": large.ask,
    "durable": durable.ask,
    "handshakes": handshakes.ask,
    "storm": storm.ask,
    "nodes": nodes.ask,
    "crowd": crowd.ask,
    "planning": planning.ask,
}

LINE = "{:<82} {:>9} {:>9}  {:<3} {:>7} {:>11}  {:<9} {}"


def line_of(row: harness.Row, *, judged: bool) -> str:
    """A row of the table as text."""
    ratio = f"{row.ratio:.2f}×" if row.ratio is not None else "–"
    spread = f"{row.spread[0]:.2f}–{row.spread[1]:.2f}" if row.spread else "–"
    budget, verdict = "–", ""
    if row.budget and judged:
        budget = f"≤ {row.budget.most:g}" + ("×" if row.budget.of == "ratio" else f" {row.unit}")
        verdict = "ok" if row.kept else "MISSED"
    floor = f"{median(row.floor):.2f}" if row.floor else "–"
    ours = f"{median(row.ours):.2f}"
    return LINE.format(row.question, floor, ours, row.unit, ratio, spread, budget, verdict).rstrip()


def conditions(bench: harness.Bench) -> str:
    """The machine and how busy it is, without which no figure means anything."""
    server, load = bench.cores
    lines = [
        f"Linux {platform.release()}, Python {platform.python_version()}, "
        f"server on core {server}, clients on core {load}, " + ("quick" if bench.quick else f"{bench.rounds} rounds")
    ]
    if server == load:
        lines.append("Only one core may be used: server and clients disturb each other, ratios will be off.")
    if (busy := os.getloadavg()[0]) > 0.7:
        lines.append(f"The machine is busy (load average {busy:.1f}): figures will be high and uneven.")
    return "\n".join(lines)


def arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what follows `--`."""
    ours = list(words)
    further: list[str] = []
    if "--" in ours:
        at = ours.index("--")
        ours, further = ours[:at], ours[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)} [all]")
    parser.add_argument("--rounds", type=int, default=5, help="how often floor and ours alternate [5]")
    parser.add_argument("--server", metavar="COMMAND", help="measure this command instead of `hubbub serve`")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--check", action="store_true", help="exit with 1 where a budget is missed")
    kind.add_argument("--quick", action="store_true", help="a few messages and no judgement")
    options = parser.parse_args(ours)
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options, further


def main(words: Sequence[str]) -> int:
    """Ask the questions and print the answers; 1 when `--check` found a budget missed."""
    options, further = arguments(words)
    server = shlex.split(options.server) if options.server else list(harness.SERVE)
    bench = harness.Bench(rounds=options.rounds, quick=options.quick, server=[*server, *further])
    harness.build()
    harness.allow_many_files()

    print(conditions(bench))
    print(LINE.format("question", "floor", "ours", "", "ratio", "rounds", "budget", "ok?"), flush=True)
    missed = 0
    for name in options.questions or QUESTIONS:
        for row in QUESTIONS[name](bench):
            missed += row.kept is False
            print(line_of(row, judged=not bench.quick), flush=True)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except harness.MeasurementError as error:
        sys.exit(f"bench: {error}")
