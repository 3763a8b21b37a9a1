"""Finding the primary: the one server that takes writes, which is where the URL says, or sentinels, or a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

from hubbub.engines.redis.address import Address, Endpoint
from hubbub.engines.redis.connection import Connection, Refused, connect
from hubbub.errors import ConfigError

__all__ = ["has_moved", "reach", "run_of"]

# Seconds for a sentinel, or a member of a cluster, to say what it knows: there are others.
_PATIENCE: Final = 1.0


async def reach(address: Address, slot: int | None, name: str) -> tuple[Connection, dict[str, str]]:
    """Connect to the primary, in a cluster that of `slot`, as `name`; and hear what it says about itself.

    Raises `OSError`, `Refused`, `ConfigError`.
    """
    context = address.context()
    if not address.primary and not address.cluster:
        return await _connect(address.endpoints[0], address, context, name)
    why: OSError | Refused | None = None
    tried: set[Endpoint] = set()
    for guide in address.endpoints:
        try:
            # One that was cut off may name the primary of yesterday, which is a replica by now; the next knows better.
            named = await _named(guide, address, slot, context)
            if named not in tried:
                tried.add(named)
                return await _connect(named, address, context, name)
        except (OSError, Refused) as error:
            why = error
    assert why is not None
    raise why


def run_of(said: dict[str, str]) -> str:
    """A name for what a server is from its start, or from when it became the primary, on; out of what it has `said`."""
    # A process that was a replica in between has the same run_id, and may have lost what it had.
    return f"{said.get('run_id', '')}.{said.get('master_replid', '')}"


async def has_moved(address: Address, endpoint: Endpoint) -> bool:
    """Whether the sentinels, if there are any, name another server than `endpoint`, which does take writes.

    A cluster's primary that is cut off from the others stops by itself.
    """
    for sentinel in address.endpoints if address.primary else ():
        with contextlib.suppress(OSError, Refused, ConfigError):
            context = address.context()
            named = await _named(sentinel, address, None, context)
            if named == endpoint:
                return False
            connection, _ = await _connect(named, address, context, "hubbub")
            connection.abort("it was only looked at")
            return True
    return False


async def _named(guide: Endpoint, address: Address, slot: int | None, context: ssl.SSLContext | None) -> Endpoint:
    """What a sentinel or a member of a cluster takes for the primary; raises `OSError`, `Refused`."""
    ask = _ask_sentinel(guide, address, context) if slot is None else _ask_member(guide, slot, address, context)
    try:
        async with asyncio.timeout(_PATIENCE):
            return await ask
    except TimeoutError:
        raise OSError(f"{guide} does not answer") from None


async def _ask_sentinel(sentinel: Endpoint, address: Address, context: ssl.SSLContext | None) -> Endpoint:
    connection = await connect(sentinel, context)
    try:
        if address.sentinel_password:
            await _authenticate(connection, address.sentinel_user, address.sentinel_password)
        found = await connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.primary)
    except Refused as error:
        raise OSError(
            f"the sentinel {sentinel} refuses ({error}): its password is sentinel_password in the URL"
        ) from None
    finally:
        connection.abort("it has said what it knows")
    if not found:
        raise OSError(f"the sentinel {sentinel} knows no primary that is called {address.primary}")
    return Endpoint(found[0].decode(), int(found[1]))


async def _ask_member(member: Endpoint, slot: int, address: Address, context: ssl.SSLContext | None) -> Endpoint:
    connection = await connect(member, context)
    try:
        if address.password:
            await _authenticate(connection, address.user, address.password)
        ranges = await connection.ask("CLUSTER", "SLOTS")
    finally:
        connection.abort("it has said what it knows")
    for first, last, primary, *_ in ranges:
        if first <= slot <= last:
            # Without a name it is the one that was asked.
            return Endpoint(primary[0].decode() if primary[0] else member.host, primary[1])
    raise OSError(f"{member} knows of no server for a part of the cluster")


async def _connect(
    endpoint: Endpoint, address: Address, context: ssl.SSLContext | None, name: str
) -> tuple[Connection, dict[str, str]]:
    connection = await connect(endpoint, context)
    try:
        if address.password:
            await _authenticate(connection, address.user, address.password)
        # For whoever looks at the server's clients; one that may not name itself is as good.
        with contextlib.suppress(Refused):
            await connection.ask("CLIENT", "SETNAME", name)
        if address.database:
            await connection.ask("SELECT", address.database)
        said = _about(await connection.ask("INFO"))
        if said.get("role") == "slave":
            # The word of all versions of Redis.
            raise OSError(f"{endpoint} is a replica, which takes no writes")
    except BaseException:
        connection.abort("it was not wanted")
        raise
    return connection, said


async def _authenticate(connection: Connection, user: str, password: str) -> None:
    await connection.ask("AUTH", *([user] if user else []), password)


def _about(info: bytes) -> dict[str, str]:
    """What a server says about itself."""
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}
