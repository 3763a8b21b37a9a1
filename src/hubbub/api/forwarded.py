"""Whose request it is: what proxies say about it, for whatever looks at the client's address behind them."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.core.addresses import TrustedProxies

__all__ = ["Forwarded"]


class Forwarded:
    """Lets `app` see each request as the client made it: with its own address, and the scheme that it used."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call it, as ASGI has it."""
        if scope["type"] == "http" and scope["client"] is not None and scope["client"][0] in self._proxies:
            headers: dict[str, str] = {}
            for name, value in Headers(scope=scope).items():
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            ip, secure = self._proxies.resolve(scope["client"][0], scope["scheme"] == "https", headers)
            scope = {**scope, "client": (ip, 0), "scheme": "https" if secure else "http"}
        await self._app(scope, receive, send)
