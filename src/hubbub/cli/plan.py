"""`hubbub plan`: what a load takes, in workers, machines and engines, before anybody has bought them."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from typing import Any, Final

import msgspec

from hubbub.cli.options import add_options, configuration
from hubbub.config import OPTIONS
from hubbub.errors import ConfigError
from hubbub.planning import ENGINES, EnginePlan, Limit, Load, Machine, Plan, plan

__all__ = ["add_to"]

# What a configuration says that counts here: what is kept, and how fast a worker lets clients in.
_OPTIONS: Final = ("history_size", "history_age", "inbox_size", "inbox_age", "history_bytes", "handshake_rate")

_MULTIPLES: Final = {"": 1, "k": 1_000, "M": 1_000_000}
_PERIODS: Final = {"s": 1, "m": 60, "h": 3_600}

# Ports from which one address of a proxy connects to one of a server: as Linux comes, and as it can be told.
_PORTS: Final = 28_000
_MOST_PORTS: Final = 64_000

_WIDTH: Final = 110


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "plan",
        help="what a load takes: workers, machines, memory, engine",
        description="Say what a load takes, counted from what was measured: docs/operations/scaling.md has the "
        "figures. Numbers may be 500000, 500k or 1M, rates 2000/s, 100/m or 5/h: those of all clients together.",
    )
    # Some of these are also options of the server, and something else there: they have other names inside.
    parser.add_argument(
        "--connections", dest="clients", metavar="N", required=True, help="clients that are connected at a time"
    )
    parser.add_argument("--rooms", dest="room_count", metavar="N", default="0", help="rooms that there are [0]")
    parser.add_argument("--rooms-each", metavar="N", default="1", help="rooms that each client is in [1]")
    parser.add_argument("--rate", metavar="RATE", default="0/s", help="messages into rooms [0/s]")
    parser.add_argument("--direct", metavar="RATE", default="0/s", help="messages to one user each [0/s]")
    parser.add_argument("--broadcast", metavar="RATE", default="0/s", help="messages to everybody [0/s]")
    parser.add_argument("--size", metavar="BYTES", default="128", help="bytes of a content [128]")
    parser.add_argument("--tls", action="store_true", help="Hubbub speaks TLS itself, and no proxy does")
    parser.add_argument("--engine", dest="shared", choices=[*ENGINES], default="redis", help="what nodes share [redis]")
    parser.add_argument("--machines", metavar="N", default="1", help="machines, at least [1]")
    parser.add_argument("--cores", metavar="N", default="4", help="cores of a machine [4]")
    parser.add_argument("--memory", metavar="GIB", default="16", help="memory of a machine [16]")
    parser.add_argument("--network", metavar="GBITS", default="10", help="network of a machine [10]")
    parser.add_argument("--json", action="store_true", help="the plan as JSON, for programs")
    add_options(parser, [OPTIONS[name] for name in _OPTIONS])
    parser.set_defaults(run=_run, parser=parser)


def _run(parsed: argparse.Namespace) -> int:
    configured = configuration(parsed)
    rate = configured.hub.rates.handshake_rate
    load = Load(
        connections=_number(parsed, "clients", "connections"),
        rooms=_number(parsed, "room_count", "rooms", least=0),
        rooms_each=_number(parsed, "rooms_each"),
        rate=_rate(parsed, "rate"),
        direct=_rate(parsed, "direct"),
        broadcast=_rate(parsed, "broadcast"),
        size=_number(parsed, "size", least=0),
        tls=parsed.tls,
    )
    if load.rooms and load.rooms_each > load.rooms:
        raise ConfigError("--rooms-each is more than there are rooms: say with --rooms how many there are")
    if load.rate and not load.rooms:
        raise ConfigError("--rate is of messages into rooms: say with --rooms how many there are, or take --direct")
    machine = Machine(
        cores=_number(parsed, "cores"), memory=_number(parsed, "memory"), network=_number(parsed, "network")
    )
    found = plan(
        load,
        machine,
        machines=_number(parsed, "machines"),
        engine=parsed.shared,
        history=configured.history,
        handshakes=float("inf") if rate.off else rate.count / rate.period,
    )
    print(_as_json(found) if parsed.json else _as_text(found))
    return 0


def _number(parsed: argparse.Namespace, name: str, shown: str = "", least: int = 1) -> int:
    text: str = getattr(parsed, name)
    found = re.fullmatch(r"(\d{1,12})([kM]?)", text.replace(",", "").replace("_", ""))
    number = int(found[1]) * _MULTIPLES[found[2]] if found else -1
    if number < least:
        flag = "--" + (shown or name).replace("_", "-")
        raise ConfigError(f"{flag} must be a whole number, {least} or more, such as 500000, 500k or 1M")
    return number


def _rate(parsed: argparse.Namespace, name: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([kM]?)/([smh])", getattr(parsed, name))
    if found is None:
        raise ConfigError(f"--{name} must be a number of messages by time, such as 2000/s, 2k/s, 100/m or 5/h")
    return float(found[1]) * _MULTIPLES[found[2]] / _PERIODS[found[3]]


# -------------------------------------------------------------------------------------------------- showing


def _as_json(found: Plan) -> str:
    plain = {**msgspec.to_builtins(found), "back": found.back}
    # JSON has no infinity.
    plain["wall"]["times"] = min(found.wall.times, 1e9)
    return msgspec.json.format(msgspec.json.encode(plain)).decode()


def _as_text(found: Plan) -> str:
    lines = [_said(found.load), ""]
    for name, said in _chapters(found):
        for text in said:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<9}", subsequent_indent=" " * 9)
            name = ""
    return "\n".join(lines)


def _said(load: Load) -> str:
    parts = [f"{load.connections:,} clients"]
    if load.rooms:
        parts.append(f"{load.rooms:,} rooms of {load.members:,.0f}")
    for rate, where in ((load.rate, "into rooms"), (load.direct, "to one user each"), (load.broadcast, "to everybody")):
        if rate:
            parts.append(f"{_figure(rate)} messages/s {where}")
    return f"{', '.join(parts)}: {_figure(load.deliveries)} deliveries/s"


def _chapters(found: Plan) -> list[tuple[str, list[str]]]:
    machine = f"{found.machine.cores} cores and {found.machine.memory:g} GiB"
    several = found.machines > 1
    chapters = [
        (
            "workers",
            [
                f"{found.workers} on "
                + (f"{found.machines} machines with {machine} each" if several else f"one machine with {machine}"),
                f"each: {found.connections:,} connections, {_percent(found.busy)} of its core, "
                f"{_figure(found.memory)} GiB, a limit of {found.files:,} open files",
            ],
        ),
        (
            "machine",
            [
                f"{_figure(found.machine_memory)} GiB with what the kernel keeps"
                + (f", {_figure(found.network)} Gbit/s to clients" if found.network else "")
            ],
        ),
    ]
    # Those of a machine that has died come to the others.
    to_each = math.ceil(found.load.connections / max(1, found.machines - 1))
    if to_each > _PORTS and not found.load.tls:
        addresses = -(-to_each // _MOST_PORTS)
        few = f"{addresses} addresses" if addresses > 1 else "one address"
        when = " when another has died" if several else ""
        chapters.append(("proxies", [f"{to_each:,} connections to a machine{when}: ports for so many, from {few}"]))
    chapters += [
        ("engine", _engine(found.engine, found.history)),
        ("return", _return(found)),
        ("wall", [f"at {_figure(found.wall.times)} times this load: {found.wall.what}", f"then {found.wall.next}"]),
    ]
    return chapters


def _engine(engine: EnginePlan | None, history: float) -> list[str]:
    if engine is None:
        return [
            "none: memory, or --data DIR" + (f"; {_figure(history)} GiB for messages that are kept" * (history > 0))
        ]
    servers = f"{engine.servers} primaries, {_percent(engine.busy)} of the core of each"
    busy = servers if engine.servers > 1 else f"{_percent(engine.busy)} of its core"
    return [
        f"{engine.name}: {busy} for messages",
        f"{_figure(engine.sessions)} GiB for sessions, up to {_figure(engine.history)} GiB for messages that are kept",
    ]


def _return(found: Plan) -> list[str]:
    who = "a machine dies, its" if found.machines > 1 else "all is started anew, the"
    why = {
        Limit.RATE: "by the handshake_rate of the workers",
        Limit.WORKERS: "by the CPU of the workers",
        Limit.ENGINE: "by the CPU of the engine",
    }
    lines = [
        f"when {who} {found.lost:,} clients are back within {math.ceil(found.back)} s: "
        f"{_figure(found.arrivals)}/s, limited {why[found.limit]}"
    ]
    if found.connections_opening is not None:
        most = f"set connections_opening to {found.connections_opening} in each"
        lines.append(f"{most}: more would wait for the engine longer than a client does")
    return lines


def _figure(number: float) -> str:
    """As many digits as mean something."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _percent(part: float) -> str:
    return f"{max(1, round(part * 100))} %"
