"""The HTTP side of the port: is it alive, is it ready, what does it count, tickets, and in dev mode the chat page."""

from __future__ import annotations

import asyncio
from importlib import resources

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from hubbub.errors import Unavailable
from hubbub.hub import Handshake, Hub, Refuse
from hubbub.telemetry.metrics import CONTENT_TYPE, Metrics

__all__ = ["make_app"]

# Seconds for the engine to prove itself.
_READY_TIMEOUT = 2.0

# For whoever watches over the server, from inside, where nobody speaks TLS.
_PROBES = frozenset(("/health", "/ready", "/metrics"))

# The pages need nothing from elsewhere, and nothing inline.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


# A browser asks before it lets a page of another origin send a token (CORS). Not "credentials": cookies stay at home.
_ASK_FIRST = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization",
    "Access-Control-Max-Age": "600",
}


def make_app(hub: Hub, metrics: Metrics, *, dev: bool) -> Starlette:
    """The ASGI application for one hub; the chat page only in dev mode."""

    async def health(request: Request) -> Response:
        """The process is alive: restarting it would help nobody."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        """The node can do its work: the engine is asked the real way round."""
        if hub.draining:
            return _unready("draining")
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await hub.check()
        except (Unavailable, TimeoutError):
            return _unready("the engine is away")
        return JSONResponse({"status": "ready"})

    async def show_metrics(request: Request) -> Response:
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def give_ticket(request: Request) -> Response:
        """A ticket for whoever proves who asks: good for one connection, for half a minute."""
        asked = _as_handshake(request)
        screened = hub.screen(asked)
        if isinstance(screened, Refuse):
            hub.record_refusal(asked.ip, screened)
            return _refused(screened)
        # What it says is for the one who asked, also where that is a page of another origin that may connect.
        headers = {"Cache-Control": "no-store", **_for_page(request)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={**headers, **_ASK_FIRST})
        answer = await hub.give_ticket(screened)
        if isinstance(answer, Refuse):
            hub.record_refusal(asked.ip, answer)
            return _refused(answer, headers)
        return JSONResponse(msgspec.to_builtins(answer), 201, headers=headers)

    routes: list[BaseRoute] = [
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", show_metrics),
        Route("/api/tickets", give_ticket, methods=["POST", "OPTIONS"]),
        # The port has taken those that ask for an upgrade: who comes here forgot to.
        Route("/ws", _upgrade_required),
    ]
    if dev:
        web = str(resources.files("hubbub") / "web")

        async def page(request: Request) -> Response:
            return FileResponse(f"{web}/index.html", headers=_PAGE_HEADERS)

        routes += [Route("/", page), Mount("/web", _Pages(directory=web))]
    return Starlette(
        routes=routes,
        exception_handlers={404: _not_found, 405: _not_allowed},
        middleware=[Middleware(_OverTls, hub=hub)],
    )


class _OverTls:
    """Asks the hub whether a request may have come as it did, probes excepted."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http" and scope["path"] not in _PROBES:
            asked = _as_handshake(Request(scope))
            refusal = self._hub.over_tls(asked)
            if refusal is not None:
                self._hub.record_refusal(asked.ip, refusal)
        await (self._app if refusal is None else _refused(refusal))(scope, receive, send)


class _Pages(StaticFiles):
    """Static files that say what they may load, and are asked for anew when they change."""

    async def get_response(self, path: str, scope: object) -> Response:
        response = await super().get_response(path, scope)  # type: ignore[arg-type]  # Starlette's own Scope
        response.headers.update(_PAGE_HEADERS)
        return response


def _as_handshake(request: Request) -> Handshake:
    """A request as who decides about handshakes sees it."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}" if name in headers else value
    return Handshake(
        path=request.url.path,
        query=dict(reversed(request.query_params.multi_items())),
        headers=headers,
        subprotocols=(),
        ip=request.client.host if request.client is not None else "",
        secure=request.url.scheme == "https",
    )


def _for_page(request: Request) -> dict[str, str]:
    """What lets a page that may connect read the answer."""
    origin = request.headers.get("origin")
    return {} if origin is None else {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _refused(refuse: Refuse, headers: dict[str, str] | None = None) -> Response:
    """A refusal as the port would write it."""
    headers = dict(headers or {})
    if refuse.retry_after is not None:
        headers["Retry-After"] = str(refuse.retry_after)
    if refuse.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": {"code": refuse.code, "message": refuse.message}}, refuse.status, headers=headers)


def _unready(why: str) -> Response:
    return JSONResponse({"error": {"code": "unavailable", "message": why}}, 503, headers={"Retry-After": "1"})


async def _upgrade_required(request: Request) -> Response:
    message = "this is a WebSocket: connect to it with ws:// and a WebSocket client"
    return JSONResponse(
        {"error": {"code": "bad_message", "message": message}},
        426,
        headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    )


async def _not_allowed(request: Request, error: Exception) -> Response:
    allowed = getattr(error, "headers", None) or {}
    message = f"this is not for {request.method}: use {allowed.get('Allow', 'another method')}"
    return JSONResponse({"error": {"code": "bad_message", "message": message}}, 405, headers=allowed)


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": {"code": "not_found", "message": "there is nothing at this path"}}, 404)
