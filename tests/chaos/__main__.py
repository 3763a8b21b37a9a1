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

from chaos.plan import Plan
from chaos.report import report
from chaos.run import run
from chaos.server import SERVE, DeadServerError


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="chaos", description="Kill the server again and again under load, and see that nothing is lost."
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="how long [180]")
    parser.add_argument("--rate", type=float, default=2000.0, help="publications per second [2000]")
    parser.add_argument("--seed", type=int, default=None, help="of all chance; without it another one each time")
    parser.add_argument("--clients", type=int, default=200, help="how many users, ten to a room [200]")
    parser.add_argument("--real", type=int, default=40, help="how many of them are the package's own client [40]")
    parser.add_argument("--durability", default="full", help="full, normal, or memory: no durability at all [full]")
    parser.add_argument("--no-kills", action="store_true", help="resets and stalls alone")
    parser.add_argument("--server", metavar="COMMAND", default=shlex.join(SERVE), help="instead of `hubbub serve`")
    parser.add_argument("options", nargs="*", help="after `--`: further options of `hubbub serve`")
    return parser.parse_args()


def main() -> int:
    """Run it; 1 where it failed."""
    asked = arguments()
    directory = Path(tempfile.mkdtemp(prefix="hubbub-chaos-"))
    plan = Plan(
        seed=secrets.randbelow(2**32) if asked.seed is None else asked.seed,
        directory=directory,
        seconds=asked.seconds,
        rate=asked.rate,
        clients=asked.clients,
        rooms=max(1, asked.clients // 10),
        real=asked.real,
        kills=None if asked.no_kills else Plan.kills,
        durability=None if asked.durability == "memory" else asked.durability,
        command=tuple(shlex.split(asked.server)),
        options=tuple(asked.options),
    )
    print(f"seed {plan.seed}: {plan.seconds:g} s of kills, resets and stalls", flush=True)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(run(plan))
    except DeadServerError as error:
        print(f"chaos: {error}; its log is {directory / 'server.log'}", file=sys.stderr)
        return 1
    print(report(outcome))
    if outcome.passed:
        shutil.rmtree(directory)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
