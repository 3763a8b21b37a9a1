"""The constants of the protocol say what `spec/codes.json` says, and that file does not contradict itself."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from hubbub.protocol import codes
from hubbub.protocol.codes import COME_BACK, RECONNECT, STAY_AWAY, CloseCode, ErrorCode

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "spec" / "codes.json").read_text(encoding="utf-8"))
    return content


def test_generated_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """Every generated file is what the tool makes of the specification now."""
    main = runpy.run_path(str(ROOT / "tools" / "codes.py"))["main"]

    assert main(["--check"]) == 0, capsys.readouterr().out


def test_all_is_complete() -> None:
    """`__all__` names each public constant and nothing else."""
    imported = {"Final", "IntEnum", "Mapping", "MappingProxyType", "StrEnum", "annotations"}
    public = {name for name in vars(codes) if not name.startswith("_")} - imported

    assert set(codes.__all__) == public


def test_every_code_has_its_constant(spec: dict[str, Any]) -> None:
    """Each code of the specification is a member with the same value, in the same order."""
    assert [code.value for code in ErrorCode] == list(spec["errors"])
    assert [str(code.value) for code in CloseCode] == list(spec["closes"])


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name.lower())
def test_ranges_agree_with_codes(code: CloseCode) -> None:
    """A close code comes back or stays away as its range says, so that unknown codes can be trusted to."""
    assert (code in RECONNECT) is (code not in STAY_AWAY)
    assert (code >= 4000) is (code in COME_BACK or code in STAY_AWAY)


@pytest.mark.parametrize("code", CloseCode, ids=lambda code: code.name.lower())
def test_reasons_fit_a_close_frame(code: CloseCode) -> None:
    """A reason has at most 123 bytes: 125 of a control frame less the code (RFC 6455 §5.5)."""
    assert len(codes.CLOSE_REASON[code].encode()) <= 123


def test_a_client_stays_away_only_where_the_server_meant_it(spec: dict[str, Any]) -> None:
    """No code that the network or a proxy can cause by itself makes a client give up."""
    closes = [close for close in spec["closes"].values() if not close["reconnect"]]
    statuses = {status for status, refusal in spec["handshake"].items() if not refusal["reconnect"]}

    assert all(close["sent_by"] in ("server", "both") for close in closes)
    assert statuses == {"401", "403"}
