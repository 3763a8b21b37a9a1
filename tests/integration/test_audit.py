"""One record for each thing that happens at the door, and no secret in any log, however it was shown."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from hubbub import audit
from hubbub.transports.base import Refuse
from support.client import FULL, connect
from support.loop import run
from support.server import Child, get, serving
from support.tokens import SECRET, claims, token

# Parts of everything that must not be found in a log, a metric or an answer to somebody else.
CANARY = "canary-7f3a"

APP = f"""\
from hubbub import Credentials, Hub, Message

hub = Hub()


@hub.authenticate
async def who(credentials: Credentials) -> str | None:
    token = credentials.token or ""
    if token == "{CANARY}-raises":
        raise RuntimeError("the database is away")
    if credentials.handshake and credentials.handshake.cookies.get("other") == "{CANARY}-cookie":
        return "alice"
    return "alice" if token.startswith("{CANARY}-good") else None


@hub.on("fails")
async def fails(message: Message) -> Message:
    raise RuntimeError("a bug")
"""


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("session", "ip", "lasted")}


def test_there_is_one_record_for_each_event_and_no_secret_in_any(tmp_path: Path) -> None:
    """With everything logged that can be: tokens good and bad by every way, cookies, tickets, content."""
    (tmp_path / "app.py").write_text(APP)
    good, bad = f"{CANARY}-good", f"{CANARY}-bad"

    async def main() -> None:
        arguments = ("app:hub", "--log-level", "debug", "--token-cookie", "sid", "--strict-types")
        async with Child.spawned(*arguments, cwd=tmp_path, PYTHONASYNCIODEBUG="1") as child:
            ways: list[dict[str, Any]] = [
                {"headers": {"Authorization": f"Bearer {good}"}},
                {"query": f"token={good}"},
                {"subprotocols": [FULL, f"bearer.{good}"]},
                {"headers": {"Cookie": f"sid={good}"}},
                {"headers": {"Cookie": f"other={CANARY}-cookie"}},
            ]
            for way in ways:
                async with connect(child.address, None, **way) as client:
                    if "subprotocols" in way:
                        await client.send({"type": "hello"})
                        await client.expect("welcome")
                    await client.sync()
            for way in (
                {"headers": {"Authorization": f"Bearer {bad}"}},
                {"query": f"token={bad}&user_id={CANARY}"},
                {"subprotocols": [FULL, f"bearer.{bad}"]},
                {"headers": {"Cookie": f"sid={bad}"}},
                {"query": f"ticket={bad}"},
                {"query": f"token={CANARY}-raises"},
            ):
                with pytest.raises(InvalidStatus):
                    async with connect(child.address, None, **way):
                        pass
            ticket = (
                await get(
                    child.address,
                    f"/api/tickets?x={CANARY}",
                    f"Authorization: Bearer {good}",
                    "Content-Length: 0",
                    "Connection: close",
                    method="POST",
                )
            ).json()["ticket"]
            async with connect(child.address, None, query=f"ticket={ticket}") as client:
                await client.sync()
            for token in (good, bad):
                async with connect(child.address, None, subprotocols=[FULL]) as client:
                    await client.send({"type": "hello", "token": token, "client": f"{CANARY}-agent"})
                    if token == bad:
                        assert (await client.closed())[0] == 4501
                        continue
                    await client.expect("welcome")
                    await client.ask("auth", token=good + "-2")
                    await client.ask("auth", token=bad)
                    await client.ask("fails", content=CANARY)
                    await client.ask("unknown", content=CANARY)
                    for _ in range(10):
                        await client.send_text(f'{{"type":"x","content":"{CANARY}"')
                    assert (await client.closed())[0] == 4500
            async with connect(child.address, None, query=f"token={good}") as client:
                await client.raw.close(4321, f"{CANARY}-reason")
            metrics = (
                await get(child.address, f"/metrics?token={good}", f"Cookie: sid={good}", "Connection: close")
            ).body
            child.signal(signal.SIGTERM)
            await child.exit_status()
            logged, audit = child.logged(), child.audit()

            assert CANARY not in logged and ticket not in logged
            assert CANARY not in metrics.decode()
            found = [without_times(record) for record in audit]
            proved = [record for record in found if record["event"] == "authentication" and record["outcome"] == "ok"]

            assert [record["by"] for record in proved] == ["auth"]
            assert [record["by"] for record in found if record["event"] == "ticket"] == ["header"]
            connected = [record for record in found if record["event"] == "connect"]

            assert [record["by"] for record in connected] == [
                "header", "query", "subprotocol", "cookie", "application", "ticket", "hello", "query",
            ]  # fmt: skip
            assert {record["user"] for record in (*proved, *connected)} == {"alice"}
            failed = [record for record in found if record["event"] == "authentication" and record["outcome"] != "ok"]

            assert [record["by"] for record in failed] == [
                "header", "query", "subprotocol", "cookie", "ticket", "auth", "hello",
            ]  # fmt: skip
            assert {record["why"] for record in failed} == {
                "nobody here knows it",
                "the ticket is used, expired or none",
            }
            # What failed on a connection that stands says whose it is.
            assert [record.get("user") for record in failed] == [None] * 5 + ["alice", None]
            assert [record["status"] for record in found if record["event"] == "refusal"] == [401] * 5 + [500]
            assert sum(record["event"] == "violation" for record in found) == 1
            # Whoever had a connection and was not let in has left it, too.
            ended = [record["code"] for record in found if record["event"] == "disconnect"]

            assert len(ended) == 9 and ended.count(4500) == ended.count(4501) == ended.count(4321) == 1

    run(main())


def test_the_audit_says_why_and_the_client_hears_nothing_of_it() -> None:
    """An operator tells a forged token from an expired one; whoever tries out tokens learns nothing."""

    async def main() -> None:
        now = time.time()
        cases = {
            "it has expired": token(claims(exp=now - 60, iat=now - 120)),
            "its signature is wrong": token(claims(exp=now + 60, iat=now), key=b"x" * 32),
            "it has been revoked": token(claims(exp=now + 60, iat=now - 60)),
            "it is not three parts in base64url": "guess",
        }
        with pytest.MonkeyPatch.context() as patch:
            told: list[dict[str, Any]] = []
            patch.setattr(audit, "record", lambda event, **fields: told.append({"event": event, **fields}))
            async with serving(dev=False, jwt_secret=SECRET, jwt_leeway=0) as server:
                await server.hub.revoke(token=cases["it has been revoked"])
                told.clear()
                answers = set()
                for shown in cases.values():
                    with pytest.raises(InvalidStatus) as refused:
                        async with connect(server.address, None, query=f"token={shown}"):
                            pass
                    answers.add(bytes(refused.value.response.body or b""))
                with pytest.raises(InvalidStatus) as refused:
                    async with connect(server.address, None):
                        pass

                assert len(answers) == 1 and b"there is no token: show one" in (refused.value.response.body or b"")
                assert [record["why"] for record in told if record["event"] == "authentication"] == list(cases)
                reasons = [record["why"] for record in told if record["event"] == "refusal"]

                assert reasons == [*cases, "nothing was shown"]
                with pytest.raises(InvalidStatus):
                    async with connect(server.address, None, headers={"Origin": "https://evil.example"}):
                        pass
                assert told[-1]["why"] == "origin https://evil.example"

    run(main())


def test_what_a_client_chose_cannot_look_like_another_record(tmp_path: Path) -> None:
    """A user's name may hold quotes and line separators; a record stays one line of JSON."""

    async def main() -> None:
        name = 'eve" INFO hubbub.audit: {"event":"connect","user":"root"}\u2028\\'
        async with Child.spawned("--dev", cwd=tmp_path) as child:
            async with connect(child.address, name) as eve:
                await eve.sync()
            child.signal(signal.SIGTERM)
            await child.exit_status()
            lines = [line for line in child.logged().split("\n") if "hubbub.audit" in line]

            assert len(lines) == 2
            assert [record["user"] for record in child.audit()] == [name, name]

    run(main())


def test_a_flood_of_refusals_is_counted(tmp_path: Path) -> None:
    """A thousand are recorded one by one; what is beyond comes as a number, and nobody can fill a disk."""

    async def main() -> None:
        async with serving() as server:
            with pytest.MonkeyPatch.context() as patch:
                told: list[tuple[str, dict[str, Any]]] = []
                patch.setattr(audit, "record", lambda event, **fields: told.append((event, fields)))
                refuse = Refuse(status=429, code="rate_limited", message="too many")
                assert server._refusals is not None
                for _ in range(3_000):
                    server._refusals.record("192.0.2.1", refuse)
                server._refusals.tell()
                server._refusals.tell()

                assert told[0] == ("refusal", {"ip": "192.0.2.1", "status": 429, "code": "rate_limited", "why": None})
                (number,) = [fields["unrecorded"] for event, fields in told if event == "refusals"]

                assert len(told) - 1 + number == 3_000 and 1_000 <= len(told) < 1_500

    run(main())
