"""The composition root: puts the hub, an engine and the transports together, and runs them until told to stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hubbub.api.forwarded import Forwarded
from hubbub.api.http import make_app
from hubbub.config import Config, misspelt
from hubbub.core.addresses import TrustedProxies
from hubbub.engines.memory import MemoryEngine
from hubbub.engines.sqlite.engine import SqliteEngine
from hubbub.errors import ConfigError
from hubbub.hub import Hub, stuck_threads
from hubbub.telemetry.logs import set_up
from hubbub.telemetry.metrics import Metrics
from hubbub.telemetry.scoreboard import Scoreboard
from hubbub.transports.base import Accept, Admit, Handshake, Refuse
from hubbub.transports.echo import admit_echo
from hubbub.transports.http import Http
from hubbub.transports.port import Port, bind
from hubbub.transports.tls import server_context
from hubbub.transports.websocket import WebSocket
from hubbub.worker import FOLDER, LEAVE, Worker

if TYPE_CHECKING:
    import ssl

    from hubbub.auth.jwt import JwtAuthenticator
    from hubbub.engines.nats.engine import NatsEngine
    from hubbub.engines.redis.engine import RedisEngine

__all__ = ["Server", "announce", "bind", "run", "why_not"]

log = logging.getLogger("hubbub.server")

# Seconds between two sweeps of what the engine no longer needs.
_SWEEP_INTERVAL = 10.0
# Seconds between two times that a worker lets the others know what it has counted.
_POST_INTERVAL = 1.0


class Server:
    """A hub on a port: WebSocket at /ws, HTTP beside it, both in TLS where there is a certificate.

    Raises `ConfigError` where the options of two room patterns contradict each other, or a key for tokens cannot be.
    """

    def __init__(self, hub: Hub, config: Config, worker: Worker | None = None) -> None:
        self.hub = hub
        self.config = config
        self._worker = worker
        self._metrics = Metrics(hub, None if worker is None else Scoreboard(worker.scoreboard, worker.place))
        self._engine = _engine(hub, config)
        self._authenticator = _authenticator(config)
        self._port: Port | None = None
        self._websocket: WebSocket | None = None
        self._http: Http | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL without a path."""
        assert self._port is not None
        host, port = self._port.addresses[0]
        scheme = "http" if self._port.tls is None else "https"
        if self.config.server.host == "localhost" or host in ("0.0.0.0", "::"):  # noqa: S104  # comparing
            host = "localhost"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def start(self) -> None:
        """Listen; raises `ConfigError` when the address or the certificate cannot be had, or nobody could come in."""
        config = self.config
        tls = server_context(config.tls)
        if not config.hub.dev and not self.hub.authenticates and self._authenticator is None:
            raise ConfigError(
                "nobody could come in: set HUBBUB_JWT_SECRET or jwt_keys, or register an @hub.authenticate hook and "
                "run `hubbub serve module:hub`, or try it out with `hubbub serve --dev`, where clients name themselves"
            )
        if config.hub.require_tls and tls is None and config.server.trusted_proxies == TrustedProxies():
            raise ConfigError(
                "require_tls lets nobody in: set tls_cert and tls_key, or trusted_proxies, whose TLS it then is"
            )
        await self.hub.start(self._engine, config.hub, authenticator=self._authenticator)
        try:
            await self._open(tls)
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError):
                raise ConfigError(why_not(error, config)) from error
            raise
        self._sweep()
        if self._worker is not None:
            self._post()

    async def _open(self, tls: ssl.SSLContext | None) -> None:
        """Put together what comes before the hub, and listen."""
        config = self.config
        if self._authenticator is not None:
            self._authenticator.start()
        wheel = self.hub.wheel
        self._websocket = WebSocket(config.transport, wheel, config.compression)
        proxies = config.server.trusted_proxies
        app = Forwarded(make_app(self.hub, self._metrics, dev=config.hub.dev), proxies)
        self._http = Http(app, config.transport, wheel)
        paths: dict[str, Admit] = {"/ws": self.hub.admit}
        if config.hub.dev:
            paths["/echo"] = self._admit_echo
        self._port = Port(
            limits=config.transport,
            wheel=wheel,
            paths=paths,
            websocket=self._websocket.open,
            http=self._http.protocol,
            tls=tls,
            on_refused=self.hub.record_refusal,
            proxies=proxies,
            compression=config.compression.compression,
        )
        sockets = self._worker.listening() if self._worker else await bind(config.server.host, config.server.port)
        await self._port.open(sockets)

    async def _admit_echo(self, handshake: Handshake) -> Accept | Refuse:
        screened = self.hub.screen(handshake)
        return screened if isinstance(screened, Refuse) else await admit_echo(screened)

    def reload_certificate(self) -> None:
        """Read certificate and key again, for connections from now on; those that stand keep theirs.

        A pair that cannot be used is logged, and the one before it stays.
        """
        if self._port is None or self._port.tls is None:
            return
        try:
            self._port.tls = server_context(self.config.tls)
        except ConfigError as error:
            log.error("the certificate stays the one before: %s", error)
        else:
            log.info("the certificate in %s is served from now on", self.config.tls.tls_cert)

    def stop_accepting(self) -> None:
        """Leave the port to others who listen on it: nobody need hear that this server ends."""
        if self._port is not None:
            self._port.stop_accepting()

    def _sweep(self) -> None:
        self._engine.sweep()
        self.hub.wheel.after(_SWEEP_INTERVAL, self._sweep)

    def _post(self) -> None:
        self.hub.wheel.after(_POST_INTERVAL, self._post)
        self._metrics.post()

    def show_life(self, worker: Worker) -> None:
        """Give the supervisor of this worker signs of life, for as long as the hub's clock ticks."""
        if worker.beat:
            worker.alive()
            self.hub.wheel.after(worker.beat, lambda: self.show_life(worker))

    async def drain(self, timeout: float) -> None:
        """Take nobody new, ask everyone to come back elsewhere, wait for them; at most `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        # Readiness turns red while the port is still open: a load balancer learns it from /ready.
        await self.hub.drain(timeout)
        assert self._port is not None
        assert self._websocket is not None
        while self._websocket.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        self._port.stop_accepting()

    async def stop(self) -> None:
        """End everything that is left, at once; harmless twice."""
        if self._port is not None:
            await self._port.close()
        if self._http is not None:
            await self._http.close(timeout=1.0)
        if self._websocket is not None:
            self._websocket.abort()
        if self._authenticator is not None:
            await self._authenticator.close()
        # A turn for what was aborted to be told so.
        await asyncio.sleep(0)
        await self.hub.stop()


def _engine(hub: Hub, config: Config) -> MemoryEngine | SqliteEngine | RedisEngine | NatsEngine:
    history, store = config.history, config.store
    retention = hub.retention(config.hub, history)
    url = config.engine.engine
    if url.startswith(("nats:", "tls:")):
        # Here, like the other: not everybody needs it.
        from hubbub.engines.nats.engine import NatsEngine

        prefix, replicas = config.nats.nats_prefix, config.nats.nats_replicas
        return NatsEngine(url, history, prefix=prefix, replicas=replicas, retention=retention)
    if url and not url.startswith("redis"):
        # Not by the engine on Redis: who has misspelt NATS need not install anything.
        raise ConfigError(
            "there is no engine of this kind: begin its URL with nats://, tls://, redis://, redis+sentinel:// or "
            "redis+cluster://, or leave it out, and channels are in this process, or in data"
        )
    if url:
        # Here: hiredis is an extra.
        from hubbub.engines.redis.engine import RedisEngine

        return RedisEngine(url, history, prefix=config.redis.redis_prefix, retention=retention)
    if not store.data:
        return MemoryEngine(history, retention=retention)
    if (Path(store.data) / FOLDER).exists():
        raise ConfigError(
            f"{store.data} holds what several workers have stored: start with --workers 2 or more, or name another "
            "folder in data"
        )
    return SqliteEngine(store.data, store.durability, history, retention=retention)


def _authenticator(config: Config) -> JwtAuthenticator | None:
    if not config.auth.jwt_secret and not config.auth.jwt_keys:
        return None
    # Here: cryptography is 9 MB, and not everybody needs it.
    from hubbub.auth.jwt import JwtAuthenticator

    return JwtAuthenticator(config.auth)


def why_not(error: OSError, config: Config) -> str:
    """One sentence about an address that cannot be had."""
    where = f"{config.server.host}:{config.server.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or choose another with --port or HUBBUB_PORT"
    if error.errno == errno.EACCES:
        return f"{where} may not be opened: ports below 1024 need privileges, choose another with --port or HUBBUB_PORT"
    return f"{where} cannot be opened ({error.strerror or error}): choose another with --host and --port"


def run(hub: Hub, config: Config, worker: Worker | None = None) -> int:
    """Run the server, perhaps as one of several workers, until SIGTERM or SIGINT; returns the exit status."""
    set_up(config.server.log_level, None if worker is None else worker.number)
    if worker is not None:
        config = worker.share(config)
    # What is the same for all workers one of them says.
    first = worker is None or worker.number == 1
    for name, meant in misspelt(os.environ).items() if first else ():
        # Not its value: it may be a secret of somebody else's.
        log.warning("%s is no option and is ignored: did you mean %s?", name, meant)
    _raise_file_limit(config, warn=first)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        status = runner.run(_serve(hub, config, worker))
    _leave_threads_behind(status)
    return status


def _leave_threads_behind(status: int) -> None:
    """Exit now where a handler's thread does not end: the interpreter would wait for it for ever."""
    if stuck_threads(0.2):
        log.warning("a blocking handler does not return: exiting without it")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)


async def _serve(hub: Hub, config: Config, worker: Worker | None) -> int:
    server = Server(hub, config, worker)
    loop = asyncio.get_running_loop()
    stopping, now = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        # The first time politely; whoever asks twice does not want to wait for others.
        if stopping.is_set():
            now.set()
        stopping.set()

    def leave() -> None:
        server.stop_accepting()
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    if worker is not None:
        # A successor takes what comes.
        loop.add_signal_handler(LEAVE, leave)
        # The supervisor is gone, and whoever starts another wants the port.
        loop.add_reader(worker.lifeline, leave)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
    elif config.tls.tls_cert:
        loop.add_signal_handler(signal.SIGHUP, server.reload_certificate)
    try:
        await server.start()
        _quiet_collector()
        if worker is not None:
            worker.ready(server.address)
            server.show_life(worker)
        else:
            announce(server.address, config)
        await stopping.wait()
        draining = loop.create_task(server.drain(config.server.drain_timeout))
        hurrying = loop.create_task(now.wait())
        await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurrying):
            task.cancel()
        for outcome in await asyncio.gather(draining, hurrying, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.error("the drain failed", exc_info=outcome)
    finally:
        await server.stop()
    return 0


def announce(address: str, config: Config) -> None:
    """Say where the server listens, and in dev mode what to do with it."""
    # Flushed: whoever starts the server as a child waits for this line.
    print(f"Hubbub is ready on {address}", flush=True)  # noqa: T201  # the program's own output
    if config.hub.dev:
        address = address.replace("http", "ws", 1)
        print(  # noqa: T201  # the same
            "  the chat:    open that address in two tabs and talk to yourself\n"
            f"  a terminal:  {_command()} connect '{address}/ws?user_id=alice'\n"
            f"               npx wscat -c '{address}/ws?user_id=alice'\n"
            "  This is --dev: anyone may be anyone. Press Ctrl+C to stop.",
            flush=True,
        )


def _command() -> str:
    """What to type for `hubbub`: where it is in no folder of PATH, the way in which this one was started."""
    if shutil.which("hubbub") is not None:
        return "hubbub"
    started = Path(sys.argv[0])
    return str(started) if started.name == "hubbub" else "python -m hubbub"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        # asyncio's own loop does everything, slower.
        return None
    return uvloop.new_event_loop


def _raise_file_limit(config: Config, *, warn: bool) -> None:
    """Every connection is a file: take as many as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    wanted = config.hub.limits.connections
    if warn and soft != resource.RLIM_INFINITY and soft < min(wanted, 10_000):
        log.warning(
            "this process may open %d files, and each connection is one: raise it with `ulimit -n %d`",
            soft,
            wanted,
        )


def _quiet_collector() -> None:
    """Keep the cyclic garbage collector out of the way: its pauses are the tail of the latency."""
    # What was imported lives as long as the process: no need to look at it again and again.
    gc.collect()
    gc.freeze()
    # Connections make no cycles, so it finds next to nothing: seldom is enough for what an application makes.
    gc.set_threshold(50_000, 20, 50)
