"""`hubbub token`: make a token for trying out, signed with the secret that the server checks it with."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any, Final

import msgspec

from hubbub.auth.options import AuthOptions
from hubbub.cli.options import add_options, configuration
from hubbub.config import OPTIONS
from hubbub.errors import ConfigError

__all__ = ["add_to"]

_seconds: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_to(commands: Any) -> None:
    """Add the subcommand to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "token",
        help="make a token for trying out",
        description="Make a token for a user, signed with the secret that `hubbub serve` with the same options checks "
        "it with (HUBBUB_JWT_SECRET), and print it.",
    )
    parser.add_argument("user", metavar="USER", help="whose token it is")
    parser.add_argument("--role", metavar="ROLE", action="append", help="what the user is, may be given several times")
    parser.add_argument(
        # `rooms` is also an option of the server, and something else.
        "--rooms",
        dest="grants",
        metavar="JSON",
        help='what the token grants, such as {"game:*": ["join", "publish"]}',
    )
    parser.add_argument("--expires", metavar="TIME", default="1h", help="such as 30s, 15m, 1h or 7d [1h]")
    parser.add_argument("--issuer", metavar="ISS", help="who says that he made it; default: jwt_issuer")
    parser.add_argument("--audience", metavar="AUD", help="whom it is for; default: jwt_audience")
    add_options(parser, [OPTIONS[name] for name in AuthOptions.__struct_fields__])
    parser.set_defaults(run=_run, parser=parser)


def _run(parsed: argparse.Namespace) -> int:
    lifetime = _lifetime(parsed.expires)
    rooms = _rooms(parsed.grants)
    options = configuration(parsed).auth
    # Here, so that no other command waits until it is imported.
    from hubbub.auth.signing import make

    print(
        make(
            options,
            parsed.user,
            time.time(),
            lifetime,
            roles=parsed.role,
            rooms=rooms,
            issuer=parsed.issuer,
            audience=parsed.audience,
        )
    )
    return 0


def _lifetime(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None or not int(found[1]):
        raise ConfigError("--expires must be a number of seconds, minutes, hours or days: 30s, 15m, 1h, 7d")
    return int(found[1]) * _seconds[found[2]]


def _rooms(text: str | None) -> object:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        raise ConfigError('--rooms must be JSON such as {"game:*": ["join", "publish"]}') from None
