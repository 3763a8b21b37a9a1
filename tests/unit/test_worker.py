"""What one of several workers is told, and what its share is."""

from __future__ import annotations

import os
import socket

from hubbub.config import load
from hubbub.worker import VARIABLE, Worker


def a_worker(number: int = 1, count: int = 1) -> Worker:
    return Worker(number=number, count=count, sockets=(), status=0, lifeline=0, scoreboard=0, place=2)


def test_who_is_not_supervised_inherits_nothing() -> None:
    environment = {"HUBBUB_PORT": "1"}

    assert Worker.inherited(environment) is None
    assert environment == {"HUBBUB_PORT": "1"}


def test_what_is_inherited_goes_no_further() -> None:
    """Neither the variable nor the files: an application may start processes of its own."""
    with socket.socket() as sock:
        reads, writes = os.pipe()
        board = os.dup(writes)
        for file in (sock.fileno(), reads, writes, board):
            os.set_inheritable(file, True)
        given = Worker(
            number=2, count=3, sockets=(sock.fileno(),), status=writes, lifeline=reads, scoreboard=board, place=4
        )
        environment = {VARIABLE: given.encode()}
        worker = Worker.inherited(environment)

        assert worker == given
        assert environment == {}
        assert not any(map(os.get_inheritable, (sock.fileno(), reads, writes, board)))
        given.ready("http://localhost:1")
        assert os.read(reads, 100) == b"http://localhost:1\n"
        os.close(reads)
        os.close(board)


def test_the_connections_are_shared_and_the_name_is_its_own() -> None:
    """No connection less than was asked for in all; without a limit there is none, and without a name a host's."""
    config = load({"connections": 100, "node_name": "web"}, {})
    share = a_worker(2, 3).share(config)

    assert (share.hub.limits.connections, share.hub.node_name) == (34, "web-2")
    assert a_worker(1, 4).share(load({"connections": 0}, {})).hub.limits.connections == 0
    assert a_worker(1, 4).share(load({}, {})).hub.node_name == ""


def test_what_the_workers_share_is_their_engine() -> None:
    """Only where the configuration names none; then `data` is where that keeps it, and no business of theirs."""
    given = Worker(
        number=1, count=2, sockets=(), status=0, lifeline=0, scoreboard=0, place=2, engine="nats://127.0.0.1:1"
    )

    assert given.share(load({"data": "here"}, {})).engine.engine == "nats://127.0.0.1:1"
    assert a_worker().share(load({"engine": "redis://far"}, {})).engine.engine == "redis://far"
