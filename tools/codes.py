"""Turn `spec/codes.json` into constants, so that no code of the protocol is typed twice.

python tools/codes.py            write the generated files
python tools/codes.py --check    write nothing; exit with 1 where a generated file is not fresh
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "spec" / "codes.json"
WIDTH = 110

# codes.json as it was read.
Codes = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write what is not fresh, or with `--check` only say so; returns the exit status."""
    parser = argparse.ArgumentParser(description="Generate the protocol's constants from spec/codes.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not fresh")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in generated().items() if not is_fresh(path, text)}
    for path, text in stale.items():
        if check:
            print(f"{path.relative_to(ROOT)} is not what spec/codes.json says: run python tools/codes.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def generated() -> dict[Path, str]:
    """Every generated file and what belongs in it."""
    codes = json.loads(SOURCE.read_text(encoding="utf-8"))
    return {ROOT / "src" / "hubbub" / "protocol" / "codes.py": python(codes)}


def is_fresh(path: Path, text: str) -> bool:
    """Whether the file is there and says exactly this."""
    return path.exists() and path.read_text(encoding="utf-8") == text


# ------------------------------------------------------------------------------------------ Python

PYTHON_HEAD = '''\
"""The codes and the reserved types of the wire protocol, as constants.

Generated from spec/codes.json by tools/codes.py. Do not edit: change that file and run the tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

__all__ = [
    "CLOSE_REASON",
    "COME_BACK",
    "ERROR_MESSAGE",
    "HANDSHAKE",
    "RECONNECT",
    "RESERVED_FROM_CLIENT",
    "RESERVED_FROM_SERVER",
    "RETRYABLE",
    "STAY_AWAY",
    "CloseCode",
    "ErrorCode",
]
'''


def python(codes: Codes) -> str:
    """The constants as a Python module, formatted as ruff formats it."""
    return PYTHON_HEAD + "".join(python_body(codes))


def python_body(codes: Codes) -> Iterator[str]:
    """The module after its `__all__`, one definition after the other."""
    errors, closes = codes["errors"], codes["closes"]

    yield '\n\nclass ErrorCode(StrEnum):\n    """What an `error` says went wrong; the connection stays."""\n'
    for code, error in errors.items():
        yield f'\n    {code.upper()} = "{code}"\n' + docstring(error["about"], "    ")

    yield "\n\nclass CloseCode(IntEnum):\n"
    yield '    """Why a connection ended: the code of a WebSocket close frame and of a `goodbye`."""\n'
    for number, close in closes.items():
        yield f"\n    {close['name'].upper()} = {number}\n" + docstring(close["about"], "    ")

    retryable = [error_name(code) for code, error in errors.items() if error["retry"]]
    yield comment("Errors after which the same message, sent again unchanged, may be accepted.", gap=2)
    yield frozen("RETRYABLE", "ErrorCode", retryable)

    yield comment("What an error says where nobody has a better word for it.")
    messages = {error_name(code): quoted(error["message"]) for code, error in errors.items()}
    yield mapping("ERROR_MESSAGE", "ErrorCode, str", messages)

    yield comment("Close codes after which a client that did not ask for the close comes back by itself.")
    reconnect = [close_name(close) for close in closes.values() if close["reconnect"]]
    yield frozen("RECONNECT", "CloseCode", reconnect)

    yield comment("The reason in a close frame where nobody has a better one.")
    reasons = {close_name(close): quoted(close["reason"]) for close in closes.values()}
    yield mapping("CLOSE_REASON", "CloseCode, str", reasons)

    for span in codes["close_ranges"]:
        yield comment(span["about"])
        yield f"{span['name'].upper()}: Final = range({span['first']}, {span['last'] + 1})\n"

    yield comment("HTTP statuses that refuse a handshake, and the code in the JSON body of each.")
    statuses = {status: error_name(refusal["code"]) for status, refusal in codes["handshake"].items()}
    yield mapping("HANDSHAKE", "int, ErrorCode", statuses)

    for sender in ("client", "server"):
        types = [quoted(name) for name in codes["reserved"][f"from_{sender}"]]
        yield comment(f"Types that mean something to the protocol when a {sender} sends them.")
        yield frozen(f"RESERVED_FROM_{sender.upper()}", "str", types)


def error_name(code: str) -> str:
    """The Python expression of an error code."""
    return f"ErrorCode.{code.upper()}"


def close_name(close: Mapping[str, Any]) -> str:
    """The Python expression of a close code."""
    return f"CloseCode.{close['name'].upper()}"


def quoted(text: str) -> str:
    """A string in double quotes; JSON and Python agree on everything that a code or a message may hold."""
    return json.dumps(text, ensure_ascii=False)


def docstring(text: str, indent: str) -> str:
    """A docstring, wrapped; the quotes close on a line of their own where it takes more than one."""
    if len(indent) + len(text) + 6 <= WIDTH:
        return f'{indent}"""{text}"""\n'
    body = textwrap.fill(f'"""{text}', WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f'{body}\n{indent}"""\n'


def comment(text: str, gap: int = 1) -> str:
    """A comment of one line after `gap` empty ones."""
    return "\n" * gap + f"# {text}\n"


def frozen(name: str, kind: str, members: list[str]) -> str:
    """A frozenset, one member on a line: a changed code is a changed line."""
    lines = "".join(f"        {member},\n" for member in members)
    return f"{name}: Final[frozenset[{kind}]] = frozenset(\n    {{\n{lines}    }}\n)\n"


def mapping(name: str, kinds: str, items: Mapping[str, str]) -> str:
    """A read-only mapping, one item on a line."""
    lines = "".join(f"        {key}: {value},\n" for key, value in items.items())
    return f"{name}: Final[Mapping[{kinds}]] = MappingProxyType(\n    {{\n{lines}    }}\n)\n"


if __name__ == "__main__":
    sys.exit(main())
