"""Your code around a session's life: who may come in, and what happens when somebody comes, joins or goes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from hubbub.errors import HubbubError
from hubbub.hub.pipeline import Pipeline, Threads

if TYPE_CHECKING:
    from hubbub.hub.session import Session
    from hubbub.transports.base import Handshake
    from hubbub.types import Action, Identity

__all__ = [
    "AuthenticateHook",
    "Authenticator",
    "AuthorizeHook",
    "ConnectHook",
    "Credentials",
    "Hook",
    "Hooks",
    "OfflineHook",
    "OnlineHook",
    "RoomHook",
]


class Credentials(Struct, frozen=True):
    """What a client showed to prove who it is."""

    # From `Authorization: Bearer`, `?token=`, the subprotocol `bearer.…`, `hello` or `auth`; None without one.
    token: str | None
    # How it came, for cookies, headers and query; None for `auth` on a connection that stands.
    handshake: Handshake | None

    def __repr__(self) -> str:
        # Both hold secrets, and this may end up in a log.
        return f"Credentials(token={'…' if self.token else None})"


class Authenticator(Protocol):
    """Tells who a token was made for, without asking the application; `hubbub.auth` has one for JWT."""

    async def identify(self, token: str, now: float) -> Identity:
        """Who shows this token, at `now` (seconds since the Unix epoch).

        Raises `Reject` with `unauthorized` for a token that is not good, and `Unavailable` where that cannot be
        told now. It waits only where it must ask elsewhere.
        """


Hook = Callable[..., Any]


class Hooks:
    """What the application has registered; a hook is `async def`, or `def` (then it runs in a thread)."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        self.authenticate: Hook | None = None
        self.authorize: Hook | None = None
        self.connect: list[Hook] = []
        self.disconnect: list[Hook] = []
        self.join: list[Hook] = []
        self.leave: list[Hook] = []
        self.online: list[Hook] = []
        self.offline: list[Hook] = []

    @property
    def threads(self) -> Threads | None:
        """Where hooks that block run; set while the hub runs."""
        return self.pipeline.threads

    async def call(self, hooks: list[Hook], timeout: float, *arguments: object) -> None:
        """Call each hook in the order of registration; the first that raises ends it."""
        async with asyncio.timeout(timeout):
            for hook in hooks:
                await self.call_one(hook, *arguments)

    async def call_one(self, hook: Hook, *arguments: object) -> Any:
        """Call one hook and return what it returns."""
        if inspect.iscoroutinefunction(hook):
            return await hook(*arguments)
        if self.threads is None:
            raise HubbubError("the hub is not running")
        return await self.threads.run(hook, *arguments)


ConnectHook = Callable[["Session"], Awaitable[None] | None]
OnlineHook = Callable[[str], Awaitable[None] | None]
OfflineHook = Callable[[str, int], Awaitable[None] | None]
RoomHook = Callable[["Session", str], Awaitable[None] | None]
AuthorizeHook = Callable[["Session", "Action", str], Awaitable[bool | None] | bool | None]
AuthenticateHook = Callable[[Credentials], "Awaitable[str | Identity | None] | str | Identity | None"]
