"""Three NATS that keep everything together, of which one dies; and NATS in TLS."""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hubbub.engines.nats.engine import NatsEngine
from hubbub.errors import ConfigError, HubbubError, Reject
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.envelope import Member
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY, a_publication, contents
from support.certificates import AUTHORITY, Authority
from support.loop import run
from support.nats import Nats, serving_cluster, serving_nats
from support.publisher import Publisher, all_told, listening, rooms_are


def node(servers: list[Nats]) -> AbstractAsyncContextManager[tuple[NatsEngine, Ear]]:
    """A node that listens to the lobby, and takes the first of the servers that it can have."""
    return listening(NatsEngine("nats://" + ",".join(server.place for server in servers), replicas=3))


def test_the_server_that_leads_is_killed(tmp_path: Path) -> None:
    """Another one leads: nothing acknowledged is lost or told twice, and it is the same log as before."""

    async def main() -> None:
        with serving_cluster(tmp_path) as servers:
            async with node(servers) as (engine, _):
                before = await engine.position(LOBBY)
            info = servers[0].ask("$JS.API.STREAM.INFO.hubbub-rooms")
            (leads,) = re.findall(rb'"leader":"s(\d)"', info)
            leader = servers.pop(int(leads))
            # Each is on another of those that are left.
            async with node(servers) as (engine, ear), node(servers[1:]) as (peer, other):
                await engine.enter(LOBBY, "alice", "s1", 1, 10)
                async with Publisher(engine) as publisher:
                    leader.kill()
                    await publisher.some(200)
                await all_told(ear, publisher)
                await all_told(other, publisher)
                page = await peer.after(LOBBY, 0, 100)

                assert page.position.epoch == before.epoch
                assert contents(page.publications) == publisher.taken[:100]
                assert ear.lost_channels == other.lost_channels == []
                assert ear.departed == other.departed == []
                await rooms_are(peer, [Member("alice", 1, 1)])

    run(main(), timeout=60)


def test_the_same_message_by_two_nodes_at_once(tmp_path: Path) -> None:
    """As from a client that comes back while its message is on the way: it is stored once, and both learn where."""

    async def main() -> None:
        with serving_cluster(tmp_path) as servers:
            async with node(servers) as (engine, ear), node(servers[1:]) as (peer, _):
                one, other = Publisher(engine), Publisher(peer)
                for number in range(100):
                    accepted = await asyncio.gather(one.say(str(number)), other.say(str(number)))

                    assert accepted[0].seq == accepted[1].seq
                await all_told(ear, one)
                refusals = one.refusals + other.refusals

                assert {error.code for error in refusals if isinstance(error, Reject)} <= {ErrorCode.INTERNAL}

    run(main(), timeout=60)


def test_tls_with_a_password_and_a_certificate(tmp_path: Path) -> None:
    """Of whom the URL trusts and to whom it shows itself; anybody else is refused, with a sentence."""

    async def main() -> None:
        pair = AUTHORITY.signs().written(tmp_path)
        trusted, other = tmp_path / "trusted.pem", tmp_path / "other.pem"
        trusted.write_text(AUTHORITY.pem)
        other.write_text(Authority().pem)
        files = f'cert_file: "{pair["tls_cert"]}", key_file: "{pair["tls_key"]}", ca_file: "{trusted}"'
        tls = f"tls {{ {files}, verify: true }}\n"
        shown = f"ssl_certfile={pair['tls_cert']}&ssl_keyfile={pair['tls_key']}"
        with serving_nats(tmp_path, tls + "authorization { user: hub, password: secret }\n") as nats:
            url = f"tls://hub:secret@{nats.place}?ssl_ca_certs="
            engine, ear = NatsEngine(f"{url}{trusted}&{shown}"), Ear()
            await engine.start(ear, "node.1")
            await engine.listen([LOBBY])
            await engine.publish(LOBBY, a_publication("one"))
            await ear.hear("one")
            await engine.stop()
            for wrong in (f"{url}{other}&{shown}", f"{url}{trusted}", nats.url):
                with pytest.raises(HubbubError, match=nats.place) as caught:
                    await NatsEngine(wrong).start(Ear(), "node.1")
                assert "secret" not in str(caught.value)
            with pytest.raises(ConfigError, match="cannot be read"):
                await NatsEngine(f"{url}{tmp_path}/none.pem").start(Ear(), "node.1")

    run(main())
