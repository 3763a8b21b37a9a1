"""Write into `docs/operations/scaling.md` what can be counted: figures, outputs of `hubbub plan`, and the storm.

python tools/scaling.py            write the page, and the picture beside it
python tools/scaling.py --check    write nothing; exit with 1 where they are not fresh
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import re
import shlex
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import Meta, Struct
from returning import WEIGHT, Goodbye, Storm, crash, drain, storm

from hubbub.cli.main import main as hubbub
from hubbub.core.rates import Rate, RateLimits
from hubbub.planning import COSTS, ENGINES, Load, plan

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations" / "scaling.md"
PICTURE = PAGE.with_name("storm.svg")

# Of the storm: so many clients, each in one room, on so many workers; a machine has four.
CLIENTS = 1_000_000
WORKERS = 20
OF_A_MACHINE = 4

# Colours that differ in brightness, too, on white.
COLOURS = ("#0b62a4", "#c1440e", "#6a3d9a", "#1b7837", "#808080", "#b8860b")


# ------------------------------------------------------------------------------------------------ figures


def figures() -> str:
    """The table of what everything takes."""
    lines = ["| | | measured by |", "|---|---|---|"]
    chapters: list[tuple[str, Struct]] = [("in a worker", COSTS)]
    chapters += [(f"in the server of {name.capitalize()}", costs) for name, costs in ENGINES.items()]
    for chapter, costs in chapters:
        lines.append(f"| **{chapter}** | | |")
        hints = typing.get_type_hints(type(costs), include_extras=True)
        for name in costs.__struct_fields__:
            metas = [meta for meta in getattr(hints[name], "__metadata__", ()) if isinstance(meta, Meta)]
            for meta in metas:
                extra = meta.extra or {}
                source = f"[TLS]({extra['source']})" if extra["source"].endswith(".md") else f"`{extra['source']}`"
                lines.append(f"| {meta.description} | {getattr(costs, name):g} {extra['unit']} | {source} |")
    return "\n".join(lines)


def planned(command: str) -> str:
    """What a command prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        hubbub(shlex.split(command)[1:])
    return said.getvalue().rstrip()


# ------------------------------------------------------------------------------------------------- storm


@dataclass(frozen=True)
class Scenario:
    """A storm that the page tells of."""

    name: str
    # Whether it is drawn: what differs little is in the table alone.
    drawn: bool
    storm: Storm


def scenarios() -> Iterator[Scenario]:
    """What the page compares."""
    planned = plan(Load(connections=CLIENTS, rooms=CLIENTS // 50, rate=500.0), machines=WORKERS // OF_A_MACHINE)
    assert planned.connections_opening is None and planned.workers == WORKERS
    default = RateLimits().handshake_rate
    of_a_machine = CLIENTS // (WORKERS // OF_A_MACHINE)
    left = WORKERS - OF_A_MACHINE

    def run(
        name: str, goodbyes: list[Goodbye], workers: int, rate: Rate, drawn: bool = True, **how: object
    ) -> Scenario:
        return Scenario(name, drawn, storm(goodbyes, workers, rate=rate, **how))  # type: ignore[arg-type]  # its own

    yield run(f"a machine of {OF_A_MACHINE} workers dies", crash(of_a_machine), left, default)
    yield run("everybody, one Redis", crash(CLIENTS), WORKERS, default)
    yield run("everybody, four primaries", crash(CLIENTS), WORKERS, default, servers=4)
    yield run("everybody, one Redis, without `connections_opening`", crash(CLIENTS), WORKERS, default, opening=0)
    yield run("everybody, one Redis, waits that double without chance", crash(CLIENTS), WORKERS, default, wait=doubling)
    yield run("everybody, one Redis, a try each second", crash(CLIENTS), WORKERS, default, False, wait=each_second)
    for timeout in (30, 120):
        told = drain(of_a_machine, OF_A_MACHINE, timeout)
        yield run(f"a machine is drained, `drain_timeout` {timeout}", told, left, default, timeout == 120)


def doubling(attempt: int, chance: float, at_least: float | None) -> float:
    """Waits as clients of ours have them, without chance."""
    return max(min(30.0, 0.5 * 2.0 ** min(attempt - 1, 16)), at_least or 0.0)


def each_second(attempt: int, chance: float, at_least: float | None) -> float:
    """What somebody writes who has not thought about it."""
    return 1.0


def table(found: Sequence[Scenario]) -> str:
    """The storms in figures."""
    lines = [
        "| | half is back | 99 % are | a client is away for | tries of each | most tries in a second, at one worker |",
        "|---|---|---|---|---|---|",
    ]
    for scenario in found:
        storm = scenario.storm
        tries = sum(storm.tries.values()) * WEIGHT / storm.clients
        complete = storm.within(0.99) < math.inf
        away = f"{sum(storm.away) / len(storm.away):.0f} s" if complete else "–"
        half, most = (_seconds(storm.within(share)) for share in (0.5, 0.99))
        shown = f"{tries:.1f}" if complete else f"{tries:.0f} in {max(storm.tries)} s"
        lines.append(f"| {scenario.name} | {half} | {most} | {away} | {shown} | {storm.peak:,} |")
    return "\n".join(lines)


def _seconds(number: float) -> str:
    return "never" if number == math.inf else f"{number:.0f} s"


# ------------------------------------------------------------------------------------------------ picture

WIDTH, LEFT, RIGHT = 860, 64, 24
HEIGHT, TOP, GAP = 240, 40, 64
SECONDS = 240


def picture(found: Sequence[Scenario]) -> str:
    """Two charts, one below the other: who is back, and how often one worker is tried."""
    drawn = [scenario for scenario in found if scenario.drawn]
    second = TOP + HEIGHT + GAP
    height = second + HEIGHT + 44 + 18 * len(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *_frame(TOP, "clients that are back, in %", [(share / 4, f"{share * 25}") for share in range(5)]),
        *_frame(
            second,
            "tries in a second at one worker",
            [(power / 5, f"{10**power:,}") for power in range(6)],
        ),
    ]
    for scenario, colour in zip(drawn, COLOURS, strict=True):
        storm = scenario.storm
        shares = [(at / 2, storm.share(at / 2)) for at in range(2 * SECONDS + 1)]
        tries = [
            (at + 0.5, math.log10(max(1.0, storm.tries[at] * WEIGHT / storm.workers)) / 5) for at in range(SECONDS)
        ]
        # Down to the line where nobody tries any more, and no further.
        last = max(at for at, height in tries if height > 0) if any(height > 0 for _, height in tries) else 0.0
        parts.append(_line(TOP, shares, colour))
        parts.append(_line(second, [point for point in tries if point[0] <= last + 1], colour))
    for number, (scenario, colour) in enumerate(zip(drawn, COLOURS, strict=True)):
        y = second + HEIGHT + 58 + 18 * number
        parts.append(
            f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 26}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{LEFT + 36}" y="{y}">{scenario.name.replace("`", "")}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _frame(top: int, title: str, marks: list[tuple[float, str]]) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{top - 12}" font-weight="bold">{title}</text>'
    for share, text in marks:
        y = round(top + HEIGHT * (1 - share), 1)
        yield f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{text}</text>'
    for at in range(0, SECONDS + 1, 30):
        yield f'<text x="{_x(at)}" y="{top + HEIGHT + 18}" text-anchor="middle">{at} s</text>'


def _x(second: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * second / SECONDS, 1)


def _line(top: int, points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{_x(at)},{round(top + HEIGHT * (1 - height), 1)}" for at, height in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'


# --------------------------------------------------------------------------------------------------- page


def written(page: str, found: Sequence[Scenario]) -> str:
    """The page with everything that is counted as it is now."""
    for name, text in (("figures", figures()), ("storm", table(found))):
        pattern = rf"(<!-- {name}: written by tools/scaling.py -->\n).*?(\n<!-- end -->)"
        page, count = re.subn(pattern, lambda match: match[1] + text + match[2], page, flags=re.DOTALL)  # noqa: B023  # called here
        assert count == 1, name
    return re.sub(
        r"(```console\n)\$ (hubbub plan [^\n]*)\n.*?```",
        lambda match: f"{match[1]}$ {match[2]}\n{planned(match[2])}\n```",
        page,
        flags=re.DOTALL,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Write what can be counted into docs/operations/scaling.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where it is not fresh")
    check = parser.parse_args().check
    found = list(scenarios())
    fresh = {PAGE: written(PAGE.read_text(encoding="utf-8"), found), PICTURE: picture(found)}
    stale = [path for path, text in fresh.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check:
        for path in stale:
            print(f"{path.name} is not fresh: run python tools/scaling.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(fresh[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
