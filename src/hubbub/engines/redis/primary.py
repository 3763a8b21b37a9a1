"""Finding the primary: the one server that takes writes, which is where the URL says, or where sentinels say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

from hubbub.engines.redis.address import Address, Endpoint
from hubbub.engines.redis.connection import Connection, Refused, connect

__all__ = ["about", "has_moved", "reach"]

# Seconds for a sentinel: there are others.
_PATIENCE: Final = 1.0


async def reach(address: Address, name: str) -> tuple[Connection, dict[str, str]]:
    """Connect to the primary as `name`, and hear what it says about itself; raises `OSError`, `Refused`, `ConfigError`."""
    context = address.context()
    if not address.primary:
        return await _connect(address.endpoints[0], address, context, name)
    why: OSError | Refused | None = None
    for sentinel in address.endpoints:
        try:
            # One that was cut off may name the primary of yesterday, which is a replica by now; the next knows better.
            return await _connect(await _named(sentinel, address, context), address, context, name)
        except (OSError, Refused) as error:
            why = error
    assert why is not None
    raise why


async def has_moved(address: Address, endpoint: Endpoint) -> bool:
    """Whether the sentinels, if there are any, name another server than `endpoint`, which does take writes."""
    context = address.context()
    for sentinel in address.endpoints if address.primary else ():
        with contextlib.suppress(OSError, Refused):
            named = await _named(sentinel, address, context)
            if named == endpoint:
                return False
            connection, _ = await _connect(named, address, context, "hubbub")
            connection.abort("it was only looked at")
            return True
    return False


async def _named(sentinel: Endpoint, address: Address, context: ssl.SSLContext | None) -> Endpoint:
    """What `sentinel` takes for the primary; raises `OSError`."""
    try:
        async with asyncio.timeout(_PATIENCE):
            found = await _ask(sentinel, address, context)
    except Refused as error:
        raise OSError(
            f"the sentinel at {sentinel} refuses: {error}; its password is sentinel_password in the URL"
        ) from None
    except OSError as error:
        # A timeout is one, too, without a word.
        raise OSError(f"the sentinel at {sentinel} cannot be asked: {error or 'it does not answer'}") from None
    if not found:
        raise OSError(f"the sentinel at {sentinel} knows no primary that is called {address.primary}")
    return Endpoint(found[0].decode(), int(found[1]))


async def _ask(sentinel: Endpoint, address: Address, context: ssl.SSLContext | None) -> list[bytes] | None:
    connection = await connect(sentinel, context)
    try:
        if address.sentinel_password:
            await _authenticate(connection, address.sentinel_user, address.sentinel_password)
        found: list[bytes] | None = await connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.primary)
        return found
    finally:
        connection.abort("it has said what it knows")


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
        said = about(await connection.ask("INFO"))
        if said.get("role") == "slave":
            # The word of all versions of Redis.
            raise OSError(f"{endpoint} is a replica, which takes no writes")
    except BaseException:
        connection.abort("it was not wanted")
        raise
    return connection, said


async def _authenticate(connection: Connection, user: str, password: str) -> None:
    await connection.ask("AUTH", *([user] if user else []), password)


def about(info: bytes) -> dict[str, str]:
    """What a server says about itself."""
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}
