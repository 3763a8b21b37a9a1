"""The kill test: `make chaos`, or `python -m chaos --help` in the folder `tests`."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from chaos.engines import SHARED
from chaos.plan import ENGINES, Plan, hands
from chaos.report import report
from chaos.run import run
from chaos.server import SERVE, DeadServerError


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="chaos",
        description="Let everything go wrong under load, again and again, and see that nothing is lost: one node on "
        "SQLite, and several on each engine that they can share, first one that keeps all and then one that forgets.",
    )
    parser.add_argument("--engine", choices=ENGINES, help="only this one [all but memory, which loses everything]")
    parser.add_argument("--forgets", action="store_true", help="only where the engine keeps nothing over a restart")
    parser.add_argument("--keeps", action="store_true", help="only where it keeps everything")
    parser.add_argument("--nodes", type=int, default=3, help="how many share an engine [3]")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long, each [180]")
    parser.add_argument("--rate", type=float, default=2000.0, help="publications per second [2000]")
    parser.add_argument("--seed", type=int, default=None, help="of all chance; without it another one each time")
    parser.add_argument("--clients", type=int, default=200, help="how many users, ten to a room [200]")
    parser.add_argument("--real", type=int, default=40, help="how many of them are the package's own client [40]")
    parser.add_argument("--durability", default="full", help="of SQLite: full or normal [full]")
    parser.add_argument("--no-kills", action="store_true", help="resets and stalls of clients alone")
    parser.add_argument("--server", metavar="COMMAND", default=shlex.join(SERVE), help="instead of `hubbub serve`")
    parser.add_argument("options", nargs="*", help="after `--`: further options of `hubbub serve`")
    return parser.parse_args()


def plans(asked: argparse.Namespace, directory: Path) -> list[Plan]:
    """One for each run that is asked for."""
    seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
    chosen = [asked.engine] if asked.engine else [name for name in ENGINES if name != "memory"]
    found = []
    for engine in chosen:
        for forgets in (False, True):
            if (forgets and engine not in SHARED) or (asked.forgets and not forgets) or (asked.keeps and forgets):
                continue
            folder = directory / f"{engine}{'-forgets' * forgets}"
            folder.mkdir()
            found.append(
                Plan(
                    seed=seed,
                    directory=folder,
                    engine=engine,
                    forgets=forgets,
                    nodes=asked.nodes if engine in SHARED else 1,
                    seconds=asked.seconds,
                    rate=asked.rate,
                    clients=asked.clients,
                    rooms=max(1, asked.clients // 10),
                    real=asked.real,
                    hands=() if asked.no_kills else hands(engine, forgets=forgets),
                    durability=asked.durability,
                    command=tuple(shlex.split(asked.server)),
                    options=tuple(asked.options),
                )
            )
    return found


def judged(plan: Plan) -> bool:
    """Run one, and say what came of it; whether it passed."""
    outcome, dead = None, None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(run(plan))
    except* DeadServerError as group:
        dead = group
    if outcome is None:
        print(f"chaos: {dead and causes(dead)}; the logs are in {plan.directory}", file=sys.stderr, flush=True)
        return False
    print(report(outcome), end="\n\n", flush=True)
    return outcome.passed


def causes(error: BaseException) -> str:
    """What is at the bottom of a group, in words."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(map(causes, error.exceptions))
    return str(error)


def main() -> int:
    """Run all that was asked for; 1 where one failed."""
    directory = Path(tempfile.mkdtemp(prefix="hubbub-chaos-"))
    failed = 0
    for plan in plans(arguments(), directory):
        print(f"{plan.engine}, seed {plan.seed}: {plan.seconds:g} s of misfortunes", flush=True)
        if judged(plan):
            shutil.rmtree(plan.directory)
        else:
            failed += 1
    if not failed:
        shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
