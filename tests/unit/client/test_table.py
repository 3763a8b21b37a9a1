"""The client's state machine does in every state, at every event, what the table of spec/client.md says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubbub.client.events import Reason, State
from hubbub.client.receiving import MOST_PENDING
from unit.client.player import Player

IDLE, CONNECTING, OPENING, OPEN = State.IDLE, State.CONNECTING, State.OPENING, State.OPEN
WAITING, CLOSED, FAILED = State.WAITING, State.CLOSED, State.FAILED

SPECIFICATION = Path(__file__).parents[3] / "spec" / "client.md"

Event = Callable[[Player], object]

NOTHING = "–"
"""The event is ignored: the state stays, and nothing is done."""


@dataclass
class Row:
    """One row of the table: what happens, and what comes of it in each state.

    A cell is `state after: action, action | what the probe finds`; one that is not here is NOTHING.
    """

    event: Event
    cells: Mapping[State, str]
    # Happens while it was open before it came into the state.
    before: Event | None = None
    # Happens in the state, and is not looked at.
    prepare: Event | None = None
    # Looked at afterwards.
    probe: Callable[[Player], object] | None = None
    # Only actions that begin with this count: others belong to other rows.
    only: str = ""


def everywhere(cell: str) -> dict[State, str]:
    """The same in all states, whose names stand for {}."""
    return {state: cell.format(state) for state in State}


def offline(cell: str) -> dict[State, str]:
    """The same in all states but `open`."""
    return {state: words for state, words in everywhere(cell).items() if state is not OPEN}


def pause(player: Player, seconds: float) -> None:
    """Let time pass; no longer than the connect timeout where that rules."""
    player.later(min(seconds, 4.9) if player.machine.state in (CONNECTING, OPENING) else seconds)


def last_id(player: Player) -> str:
    """The id of what was written last."""
    player.did()
    id: str = player.written[-1]["id"]
    return id


def rooms(player: Player) -> str:
    return " ".join(player.machine.rooms)


def lobby(player: Player) -> int | None:
    position = player.machine.position("room:lobby")
    return position.seq if position is not None else None


def wait(player: Player) -> float | None:
    """Seconds until the next try."""
    due = player.machine._deadline
    return None if due is None else due - player.now


def inbox_moves(player: Player) -> None:
    player.chat(18, room=None, to="alice")
    player.did()
    player.handle()


def asks(player: Player) -> None:
    player.machine.request("presence", {"room": "lobby"}, player.now)


def half_of_too_much(player: Player) -> None:
    """One message is handed out; the many others are only counted, as filling the bound takes its time."""
    player.chat(42)
    receiving = player.machine._receiving
    receiving._pending = MOST_PENDING
    player.chat(43)
    receiving._pending = MOST_PENDING // 2 + 1


def sends(player: Player) -> None:
    player.send(id="m1")


def joins(player: Player) -> None:
    player.machine.join("news", player.now)


def several(*events: Event) -> Event:
    """One after the other."""

    def happen(player: Player) -> None:
        for event in events:
            event(player)

    return happen


def hears(type: str, **fields: Any) -> Event:
    return lambda p: p.hear(type, **fields)


def only_in(state: State, prepare: Event) -> Event:
    return lambda p: prepare(p) if p.machine.state is state else None


def loses_the_lobby(player: Player) -> None:
    """Comes back to a server that has not let it into the lobby again, and has not said why yet."""
    player.machine.closed(player.socket, 1012, "", player.now)
    player.again(rooms={}, recovered={"inbox": True, "all": True})


def refused(status: int, retry_after: float | None = None) -> Event:
    reason = Reason("unauthorized" if status == 401 else "unavailable", "no")
    return lambda p: p.machine.refused(p.socket, status, reason, retry_after, p.now)


def closed(code: int) -> Event:
    return lambda p: p.machine.closed(p.socket, code, "", p.now)


def refused_or_broken(player: Player) -> None:
    if player.machine.state in (OPENING, OPEN):
        player.machine.broken(player.socket, "cut", player.now)
    else:
        refused(503, 7)(player)


def gets_an_expiring_token(player: Player) -> None:
    """One that lives for 50 s: a fifth of it is 10 s."""
    player.machine.renewed("t1", player.now)
    player.hear("ack", id=last_id(player), expires=55_000)


def long_ago(player: Player) -> None:
    player.now += 270
    player.machine.tick(player.now)


WHOLE = base64.b64encode(json.dumps({"type": "chat", "room": "lobby", "seq": 42}).encode()).decode()

VIOLATION = "waiting: drop 4500"

TABLE: dict[str, dict[str, Row]] = {
    "3.1": {
        "open()": Row(
            lambda p: p.machine.open(p.now),
            dict.fromkeys((IDLE, WAITING, CLOSED, FAILED), "connecting: connect"),
        ),
        "close()": Row(
            lambda p: p.machine.close(),
            {
                IDLE: "closed:",
                CONNECTING: "closed: drop 1000",
                OPENING: "closed: drop 1000",
                OPEN: "closed: write ack 18, settle x disconnected, drop 1000",
                WAITING: "closed:",
                FAILED: "closed:",
            },
            prepare=only_in(OPEN, several(asks, inbox_moves)),
        ),
        "send() a message": Row(
            sends,
            offline("{}: | 1") | {OPEN: "open: write chat m1 lobby | 1"},
            probe=lambda p: p.machine.unsettled,
        ),
        "send() a volatile message": Row(
            lambda p: p.send(volatile=True),
            offline("{}: settle x not_connected") | {OPEN: "open: write chat lobby, settle x accepted"},
        ),
        "join(room)": Row(
            joins,
            {IDLE: "idle: | news"}
            | {state: f"{state}: | lobby news" for state in State if state is not IDLE}
            | {OPEN: "open: write join x news | lobby news"},
            probe=rooms,
        ),
        "leave(room)": Row(
            lambda p: p.machine.leave("lobby", p.now),
            everywhere("{}: settle x left | ") | {OPENING: "opening: | ", OPEN: "open: write leave x lobby | "},
            probe=rooms,
        ),
        "history(), presence(), users()": Row(
            lambda p: p.machine.request("history", {"room": "lobby"}, p.now),
            offline("{}: settle x not_connected") | {OPEN: "open: write history x lobby"},
        ),
    },
    "3.2": {
        "token function fails": Row(
            lambda p: p.machine.token_failed(OSError("away"), p.now),
            {CONNECTING: "waiting: drop 1000 | ", OPEN: "open: tell error | ask token"},
            probe=lambda p: p.silent(10)[0] if p.machine.state is OPEN else "",
        ),
        "socket opened": Row(
            lambda p: p.machine.opened(p.socket, p.now, "t"),
            {CONNECTING: "opening: write hello"},
        ),
        "handshake refused, 401 or 403": Row(
            refused(401),
            {CONNECTING: "failed: drop 1000 | unauthorized"},
            probe=lambda p: p.machine.reason.code if p.machine.reason else None,
        ),
        "handshake refused otherwise, or socket failed": Row(
            refused_or_broken,
            {
                CONNECTING: "waiting: drop 1000 | 7.0",
                OPENING: "waiting: drop 1000 | 1.0",
                OPEN: "waiting: settle x disconnected, drop 1000 | 0.5",
            },
            prepare=only_in(OPEN, asks),
            probe=wait,
        ),
        "closed, a code that comes back": Row(
            closed(1012),
            {
                CONNECTING: "waiting: drop 1000 | 1.0",
                OPENING: "waiting: drop 1000 | 7.0",
                OPEN: "waiting: settle x disconnected, drop 1000 | 0.5",
            },
            prepare=several(
                only_in(OPENING, hears("error", code="unavailable", message="", retry_after=7)), only_in(OPEN, asks)
            ),
            probe=wait,
        ),
        "closed, 4003": Row(
            closed(4003),
            {
                CONNECTING: "waiting: drop 1000 | 1.0",
                OPENING: "waiting: drop 1000 | 0.0",
                OPEN: "waiting: settle x disconnected, drop 1000 | 0.0",
            },
            prepare=only_in(OPEN, asks),
            probe=wait,
        ),
        "closed, a code that stays away": Row(
            closed(4501),
            {
                CONNECTING: "failed: drop 1000 | 4501",
                OPENING: "failed: drop 1000 | unauthorized",
                OPEN: "failed: settle x disconnected, drop 1000 | 4501",
            },
            prepare=several(only_in(OPENING, hears("error", code="unauthorized", message="")), only_in(OPEN, asks)),
            probe=lambda p: p.machine.reason.code if p.machine.reason else None,
        ),
    },
    "3.3": {
        "`welcome`": Row(lambda p: p.welcome(rooms={"lobby": ("p9", 41)}), {OPENING: "open:", OPEN: VIOLATION}),
        "publication with `seq`": Row(lambda p: p.chat(42), {OPENING: VIOLATION, OPEN: "open: deliver 42"}),
        "publication without `seq`": Row(
            hears("typing", room="lobby"), {OPENING: VIOLATION, OPEN: "open: deliver typing"}
        ),
        "any publication while `pending` is full": Row(
            several(
                lambda p: p.chat(42),
                # Also what would fit again, for it is no longer the next; and nothing is held as if it were early.
                lambda p: setattr(p.machine._receiving, "_pending", 9_000),
                lambda p: p.chat(43),
            ),
            {OPENING: "waiting: drop 4500 | []", OPEN: "open: | []"},
            before=lambda p: setattr(p.machine._receiving, "_pending", MOST_PENDING),
            probe=lambda p: p.silent(1.1) if p.machine.state is OPEN else [],
        ),
        "`ack` of a message in `outgoing`": Row(
            hears("ack", id="m1", room="lobby", seq=42, epoch="p9"),
            {OPENING: VIOLATION + " | 41", OPEN: "open: settle m1 accepted | 42"},
            before=lambda p: p.send(id="m1", echo=False),
            probe=lobby,
        ),
        "`ack` of a volatile message": Row(
            hears("ack", id="v1", room="lobby"),
            {OPENING: VIOLATION, OPEN: "open: settle v1 accepted"},
            before=lambda p: p.send(id="v1", volatile=True),
        ),
        "`ack` without `id`": Row(
            hears("ack", room="lobby", seq=42, epoch="p9"),
            {OPENING: VIOLATION + " | 41", OPEN: "open: | 42"},
            probe=lobby,
        ),
        "`ack` of `auth`": Row(
            hears("ack", id="x-2", expires=55_000),
            {OPENING: VIOLATION + " | ", OPEN: "open: | ask token"},
            before=lambda p: p.machine.renewed("t1", p.now),
            probe=lambda p: " ".join(p.silent(40)) if p.machine.state is OPEN else "",
        ),
        "`ack` of anything else": Row(hears("ack", id="zz"), {OPENING: VIOLATION}),
        "`joined`": Row(
            hears("joined", id="x-2", room="news", position=["n1", 7], recovered=None, count=1),
            {OPENING: VIOLATION + " | None", OPEN: "open: settle x joined | 7"},
            before=joins,
            probe=lambda p: position.seq if (position := p.machine.position("room:news")) else None,
        ),
        "`left` with the request's `id`": Row(
            hears("left", id="x-2", room="lobby"),
            {OPENING: VIOLATION, OPEN: "open: settle x left"},
            before=lambda p: p.machine.leave("lobby", p.now),
        ),
        "`left` without": Row(
            hears("left", room="lobby", code="forbidden"),
            {OPENING: VIOLATION + " | lobby", OPEN: "open: tell left | "},
            probe=rooms,
        ),
        "`history`, `presence`, `users`, `pong`": Row(
            several(hears("presence", id="x-2", room="lobby", members=[], count=0), hears("pong", id="other")),
            {OPENING: VIOLATION, OPEN: "open: settle x presencelist"},
            before=asks,
        ),
        "`receipt`, `member-joined`, `member-left`": Row(
            several(
                hears("receipt", id="m1", by="bob", time=1),
                hears("member-joined", room="lobby", user="bob"),
                hears("member-left", room="lobby", user="bob"),
            ),
            {OPENING: VIOLATION, OPEN: "open: tell receipt, tell member-joined, tell member-left"},
        ),
        "`error` `rate_limited` of a message in `outgoing`, or of a request": Row(
            several(
                hears("error", id="m1", code="rate_limited", message="", retry_after=2),
                hears("error", id="x-2", code="rate_limited", message="", retry_after=1),
            ),
            {OPENING: "opening: | ", OPEN: "open: | write presence x lobby"},
            before=several(sends, asks),
            # The message goes when its own hold is over and the request is answered.
            probe=lambda p: " ".join(p.silent(2)) if p.machine.state is OPEN else "",
        ),
        "`error` of a message in `outgoing`, retry can help": Row(
            hears("error", id="m1", code="unavailable", message="", retry_after=3),
            {OPENING: "opening: | ", OPEN: "open: | write chat m1 lobby"},
            before=sends,
            probe=lambda p: " ".join(p.silent(3)) if p.machine.state is OPEN else "",
        ),
        "`error` of a message in `outgoing`, no retry helps": Row(
            hears("error", id="m1", code="forbidden", message=""),
            {OPENING: "opening: | 1", OPEN: "open: settle m1 refused:forbidden | 0"},
            before=sends,
            probe=lambda p: p.machine.unsettled,
        ),
        "`error` of a request": Row(
            hears("error", id="x-2", code="room_full", message="", room="news"),
            {OPENING: "opening: | lobby news", OPEN: "open: settle x refused:room_full | lobby"},
            before=joins,
            probe=rooms,
        ),
        "`error` with `room` and no `id`, of a resumed room": Row(
            hears("error", code="forbidden", message="", room="lobby"),
            {OPENING: "opening: | lobby", OPEN: "open: tell left | "},
            before=loses_the_lobby,
            probe=rooms,
        ),
        "any other `error`": Row(
            hears("error", code="bad_message", message=""), {OPENING: "opening:", OPEN: "open: tell error"}
        ),
        "`ping`": Row(hears("ping"), {OPENING: VIOLATION, OPEN: "open: write pong"}),
        "`gap`": Row(
            hears("gap", room="lobby", from_=42, to=50),
            {OPENING: VIOLATION + " | 41", OPEN: "open: tell gap | 50"},
            probe=lobby,
        ),
        "`chunk`": Row(
            hears("chunk", id="t1", index=0, total=1, data=WHOLE),
            {OPENING: VIOLATION, OPEN: "open: deliver 42"},
        ),
        "`goodbye`": Row(
            hears("goodbye", code=1012, reason="", retry_after=3),
            {OPENING: "waiting: drop 1000 | 3.0", OPEN: "waiting: drop 1000 | 3.0"},
            probe=wait,
        ),
        "another type": Row(hears("weather"), {OPENING: VIOLATION, OPEN: "open: deliver weather"}),
        "what is no message": Row(
            lambda p: p.machine.received(p.socket, "[]", p.now), {OPENING: VIOLATION, OPEN: VIOLATION}
        ),
    },
    "3.4": {
        "5 s over (connect timeout)": Row(
            lambda p: p.later(5), {CONNECTING: "waiting: drop 1000", OPENING: "waiting: drop 1000"}
        ),
        "the time to try is there": Row(
            lambda p: pause(p, 300 if p.machine.state is WAITING else 50), {WAITING: "connecting: connect"}
        ),
        "silence: `heard` is 60 s ago": Row(lambda p: pause(p, 60), {OPEN: "waiting: drop 4001"}),
        "a probe unanswered for 5 s": Row(
            lambda p: pause(p, 5),
            {OPEN: "waiting: drop 4001"},
            before=lambda p: p.machine.network_changed(p.now, online=False),
        ),
        "open for 10 s": Row(
            lambda p: pause(p, 10),
            {OPEN: "open: | 0"},
            before=several(closed(1012), lambda p: p.again()),
            probe=lambda p: p.machine.attempt,
        ),
        "a message has no answer for 10 s, or 70 s in chunks": Row(
            lambda p: pause(p, 10), {OPEN: "open: write chat m1 lobby"}, before=sends
        ),
        "the time of a **retry** is there": Row(
            lambda p: pause(p, 3),
            {OPEN: "open: write chat m1 lobby"},
            before=several(sends, hears("error", id="m1", code="unavailable", message="", retry_after=3)),
        ),
        "a **hold** is over": Row(
            lambda p: pause(p, 1),
            {OPEN: "open: write chat m1 lobby"},
            before=several(sends, hears("error", id="m1", code="rate_limited", message="", retry_after=1)),
        ),
        "first on the wire 4.5 min ago": Row(
            long_ago,
            {state: ": settle m1 unknown" for state in State if state is not IDLE},
            before=sends,
            only="settle",
        ),
        "a hole has lasted 1 s, or `held` is full": Row(
            lambda p: pause(p, 1), {OPEN: "waiting: drop 1000"}, before=lambda p: p.chat(43)
        ),
        "something was let go, and `pending` is down to a half": Row(
            lambda p: p.handle(), {OPEN: "waiting: drop 1000"}, before=half_of_too_much
        ),
        "a second since the inbox moved, or 32 messages": Row(
            lambda p: pause(p, 1), {OPEN: "open: write ack 18"}, before=inbox_moves
        ),
        "the token expires in 60 s, or in a fifth of its life where that is less": Row(
            lambda p: pause(p, 40), {OPEN: "open: ask token"}, before=gets_an_expiring_token
        ),
    },
    "3.5": {
        "network offline": Row(lambda p: p.machine.network_changed(p.now, online=False), {OPEN: "open: write ping"}),
        "network online": Row(
            lambda p: p.machine.network_changed(p.now, online=True),
            {OPEN: "open: write ping", WAITING: "connecting: connect"},
        ),
    },
}

# A program in Python has no page.
NOT_HERE = {
    "page hidden",
    "page shown",
    "page frozen or left",
    "page thawed or restored",
}


def specified() -> dict[str, list[tuple[str, list[str]]]]:
    """The tables of the specification: for each section the events and the cells of their rows."""
    text = SPECIFICATION.read_text(encoding="utf-8")
    tables: dict[str, list[tuple[str, list[str]]]] = {}
    for section, body in re.findall(r"^### (3\.\d) .*?$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL):
        lines = [line for line in body.splitlines() if line.startswith("| ")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]
        tables[section] = [(row[0], row[1:]) for row in rows]
    return tables


def test_every_row_of_the_specification_is_tested_and_no_other() -> None:
    events = {section: {event for event, _ in rows} - NOT_HERE for section, rows in specified().items()}

    assert events == {section: set(rows) for section, rows in TABLE.items()}


def test_no_cell_of_the_specification_is_empty() -> None:
    """Whoever adds an event says what it does in every state."""
    empty = [event for rows in specified().values() for event, cells in rows if not all(cells)]

    assert empty == []


CELLS = [
    pytest.param(row, state, id=f"{event} in {state}")
    for rows in TABLE.values()
    for event, row in rows.items()
    for state in State
]


@pytest.mark.parametrize(("row", "state"), CELLS)
def test_cell(row: Row, state: State) -> None:
    player = Player().to(state, before=row.before)
    if row.prepare is not None:
        row.prepare(player)
        player.did()

    row.event(player)
    did = [words for words in player.did() if words.startswith(row.only)]
    after = "" if row.only else str(player.machine.state)
    found = f"{after}: {', '.join(did)}".rstrip()
    expected = row.cells.get(state, NOTHING)
    if expected == NOTHING:
        assert found == ("" if row.only else str(state)) + ":"
    else:
        if row.probe is not None:
            found += f" | {row.probe(player)}"

        assert found == expected
