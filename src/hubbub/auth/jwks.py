"""The keys that an issuer publishes: fetched from the configured address and no other, and kept fresh.

Old keys serve while new ones are fetched, and go on serving where that fails: an issuer that is away for a while
locks nobody out. Nothing that a token says leads to an address, and a key that is not known to one look-up at most in
`COOLDOWN` seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

import msgspec
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from hubbub.auth.keys import Key, fitting
from hubbub.eager import in_task
from hubbub.errors import ConfigError, Unavailable

__all__ = ["COOLDOWN", "INTERVAL", "KeySource", "check_url", "keys_in"]

log = logging.getLogger("hubbub.auth")

INTERVAL: Final = 300.0
"""Seconds between two fetches: an issuer takes a key back, and it is gone here after so long at most."""

COOLDOWN: Final = 10.0
"""Seconds after a fetch in which there is no other, whatever tokens say."""

# Seconds that a fetch may take, each wait for the network half of it.
_TIMEOUT: Final = 10.0

# Seconds that who comes waits for a fetch: less than a handshake has.
_PATIENCE: Final = 4.0

_LARGEST: Final = 262_144
_MOST_KEYS: Final = 100

# How keys of each kind are read; a secret (`oct`) is never published.
_kinds: Final[dict[str, Callable[[dict[str, Any]], object]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


def check_url(url: str, name: str) -> None:
    """Raise `ConfigError` unless what comes from there cannot be changed on the way."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise ConfigError(
            f"the jwks_url of {name} must begin with https://, or whoever is on the way could put in keys of their "
            "own; http:// is for this machine"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def keys_in(data: bytes, algorithms: tuple[str, ...], issuer: str, audience: str) -> tuple[Key, ...]:
    """The keys of a JWK set that may sign with one of the algorithms; others are passed over (RFC 7517 §5).

    Raises `ValueError` where it is no such set.
    """
    try:
        found = msgspec.json.decode(data, type=dict[str, Any]).get("keys")
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("what it sent is no JSON object") from None
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        raise ValueError(f"what it sent has no `keys`, or more than {_MOST_KEYS}")
    made = (_key(jwk, algorithms, issuer, audience) for jwk in found if isinstance(jwk, dict))
    return tuple(key for key in made if key is not None)


def _key(jwk: dict[str, Any], algorithms: tuple[str, ...], issuer: str, audience: str) -> Key | None:
    kid, kty, operations = jwk.get("kid", ""), jwk.get("kty"), jwk.get("key_ops", ["verify"])
    if not isinstance(kid, str) or not isinstance(kty, str) or kty not in _kinds:
        return None
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    # A private key in public is nobody's any more.
    if "d" in jwk:
        return None
    try:
        material = _kinds[kty](jwk)
    except Exception:
        # Whatever is wrong with it: the library is made for what is right.
        return None
    named = jwk.get("alg")
    usable = fitting(material, algorithms if named is None else [one for one in algorithms if one == named])
    return Key(kid, usable, material, issuer, audience) if usable else None


class KeySource:
    """The keys of one issuer, as it publishes them; runs from `start` to `close`."""

    def __init__(
        self,
        url: str,
        algorithms: tuple[str, ...],
        issuer: str,
        audience: str,
        *,
        interval: float = INTERVAL,
        cooldown: float = COOLDOWN,
    ) -> None:
        self.issuer = issuer
        self.algorithms = algorithms

        # None until the first fetch has succeeded.
        self.keys: tuple[Key, ...] | None = None

        self._url = url
        self._audience = audience
        self._interval = interval
        self._cooldown = cooldown
        self._task: asyncio.Task[None] | None = None

        # Whether a thread is at it: while one hangs in the network there is no second.
        self._fetching = False

        # Whether there was a fetch just now; set when somebody wants another; set when the next one is over.
        self._resting = False
        self._wanted = asyncio.Event()
        self._over = asyncio.Event()

        # Whether the last fetch failed: said once, and not each time.
        self._failing = False

    def start(self) -> None:
        """Fetch now, and again and again."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_ended)

    async def close(self) -> None:
        """Fetch no more, and let nobody wait."""
        self._over.set()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look_again(self) -> None:
        """Fetch unless that was done just now, and wait for it for a while.

        Raises `Unavailable` where there are no keys yet.
        """
        if not self._resting:
            over = self._over
            self._wanted.set()
            # A timeout needs a task.
            await in_task()
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await over.wait()
        if self.keys is None:
            raise Unavailable("tokens cannot be checked now", retry_after=self._cooldown)

    async def _run(self) -> None:
        while True:
            await self._refresh()
            # Whoever asked meanwhile has got it.
            self._wanted.clear()
            self._over.set()
            self._over = asyncio.Event()
            self._resting = True
            await asyncio.sleep(self._cooldown)
            self._resting = False
            if not self._failing:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._interval - self._cooldown)):
                        await self._wanted.wait()

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                data = await self._fetched()
            self.keys = keys_in(data, self.algorithms, self.issuer, self._audience)
        except (OSError, ValueError, TimeoutError) as error:
            if not self._failing:
                kept = "none are known, and its tokens are refused" if self.keys is None else "the old ones go on"
                log.warning("the keys of %s cannot be fetched: %s; %s", self.issuer, _why(error), kept)
            self._failing = True
            return
        if self._failing:
            log.info("the keys of %s can be fetched again", self.issuer)
        self._failing = False
        if not self.keys:
            log.warning("%s publishes no key that could be used with %s", self.issuer, ", ".join(self.algorithms))

    async def _fetched(self) -> bytes:
        # Not in the loop's pool: leaving would wait for it, and a thread in it for a network that is gone.
        if self._fetching:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[bytes] = loop.create_future()

        def settle(data: bytes | None, error: BaseException | None) -> None:
            if outcome.done():
                return
            if data is not None:
                outcome.set_result(data)
            elif error is not None:
                outcome.set_exception(error)

        def work() -> None:
            data, failure = None, None
            try:
                data = _get(self._url)
            except Exception as error:
                failure = error if isinstance(error, OSError | ValueError) else ValueError(type(error).__name__)
            self._fetching = False
            # The loop may be gone, and whoever asked with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, data, failure)

        self._fetching = True
        threading.Thread(target=work, name="hubbub-jwks", daemon=True).start()
        return await outcome


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("keys are no longer fetched", exc_info=error)


def _get(url: str) -> bytes:
    """Fetch what is there; blocks. Raises `OSError`, or `ValueError` where it is too large."""
    opener = OpenerDirector()
    # Nothing that follows a redirect: the keys are at the configured address, or nowhere.
    for handler in (HTTPHandler, HTTPSHandler, HTTPErrorProcessor, HTTPDefaultErrorHandler):
        opener.add_handler(handler())
    # A proxy could put in keys of its own where nothing is encrypted: what is on this machine is asked directly.
    if url.startswith("https://"):
        opener.add_handler(ProxyHandler())
    deadline = time.monotonic() + _TIMEOUT
    try:
        answer = opener.open(
            Request(url, headers={"Accept": "application/json", "User-Agent": "hubbub"}),  # noqa: S310  # see check_url
            timeout=_TIMEOUT / 2,
        )
    except HTTPError as error:
        error.close()
        raise
    with answer:
        data = b""
        while chunk := answer.read1(65_536):
            data += chunk
            if len(data) > _LARGEST:
                raise ValueError(f"it sends more than {_LARGEST} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
    return data


def _why(error: Exception) -> str:
    """What went wrong, without the address: it may hold a secret."""
    if isinstance(error, HTTPError):
        return f"the answer is {error.code}" + (", and redirects are not followed" if 300 <= error.code < 400 else "")
    return str(error) or "it takes too long"
