"""Every option in one place: a flag, an environment variable and a TOML key for each, in that order of rank.

The options themselves are small frozen structs beside the code that they configure; here they are put
together, read from outside, and documented out of their own annotations.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from hubbub.auth.options import AuthOptions
from hubbub.core.addresses import TrustedProxies
from hubbub.core.limits import ConnectionLimits, TransferLimits
from hubbub.core.log import HistoryLimits
from hubbub.core.origins import OriginOptions
from hubbub.core.outbox import OutboxLimits
from hubbub.core.permissions import role_options
from hubbub.core.rates import Rate, RateLimits
from hubbub.core.rooms import room_options
from hubbub.engines.nats.options import NatsOptions
from hubbub.engines.options import EngineOptions
from hubbub.engines.redis.options import RedisOptions
from hubbub.engines.sqlite.options import StoreOptions
from hubbub.errors import ConfigError
from hubbub.hub.options import HubOptions
from hubbub.protocol.deflate import CompressionOptions
from hubbub.transports.base import TransportLimits
from hubbub.transports.tls import TlsOptions

__all__ = ["OPTIONS", "Config", "Option", "ServerOptions", "load", "misspelt"]


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Where the server listens, and how it ends."""

    # By name: browsers and Node take `localhost` for ::1 where there is IPv6, for 127.0.0.1 where there is none.
    host: Annotated[str, Meta(description="name or address to listen on; 0.0.0.0: all")] = "localhost"
    port: Annotated[int, Meta(ge=0, le=65_535, description="port to listen on; 0: any free one")] = 8000
    trusted_proxies: Annotated[
        TrustedProxies, Meta(description="networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed")
    ] = TrustedProxies()
    workers: Annotated[
        int,
        Meta(
            ge=0, le=256, description="processes that share the port, so that all cores are used; 0: one for each core"
        ),
    ] = 1
    worker_timeout: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds without a sign of life of a worker's event loop after which it is replaced; 0: never",
        ),
    ] = 30.0
    drain_timeout: Annotated[float, Meta(ge=0, description="seconds to say goodbye to everyone after SIGTERM")] = 30.0
    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
    ] = "info"


class Config(Struct, frozen=True, kw_only=True):
    """All options of a server."""

    server: ServerOptions = msgspec.field(default_factory=ServerOptions)
    tls: TlsOptions = msgspec.field(default_factory=TlsOptions)
    transport: TransportLimits = msgspec.field(default_factory=TransportLimits)
    compression: CompressionOptions = msgspec.field(default_factory=CompressionOptions)
    hub: HubOptions = msgspec.field(default_factory=HubOptions)
    history: HistoryLimits = msgspec.field(default_factory=HistoryLimits)
    store: StoreOptions = msgspec.field(default_factory=StoreOptions)
    engine: EngineOptions = msgspec.field(default_factory=EngineOptions)
    redis: RedisOptions = msgspec.field(default_factory=RedisOptions)
    nats: NatsOptions = msgspec.field(default_factory=NatsOptions)
    auth: AuthOptions = msgspec.field(default_factory=AuthOptions)


class Option(Struct, frozen=True):
    """One option, however it is spelled outside."""

    name: str
    type: Any
    default: Any
    description: str
    # Whether its value must not be shown to anybody.
    secret: bool = False

    @property
    def flag(self) -> str:
        """On the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment."""
        return "HUBBUB_" + self.name.upper()


_SECTIONS: tuple[type[Struct], ...] = (
    ServerOptions,
    TlsOptions,
    HubOptions,
    AuthOptions,
    OriginOptions,
    ConnectionLimits,
    TransferLimits,
    RateLimits,
    OutboxLimits,
    TransportLimits,
    CompressionOptions,
    StoreOptions,
    EngineOptions,
    RedisOptions,
    NatsOptions,
    HistoryLimits,
)


def _options() -> dict[str, Option]:
    found: dict[str, Option] = {}
    for section in _SECTIONS:
        hints = typing.get_type_hints(section, include_extras=True)
        for field in msgspec.structs.fields(section):
            default = field.default
            if field.default_factory is dict:
                default = {}
            elif default is msgspec.NODEFAULT:
                continue
            metas = [meta for meta in getattr(hints[field.name], "__metadata__", ()) if isinstance(meta, Meta)]
            description = next((meta.description for meta in metas if meta.description), "")
            secret = any((meta.extra or {}).get("secret") for meta in metas)
            # An option that two structs share (`message_size`) is one option.
            found.setdefault(field.name, Option(field.name, hints[field.name], default, description, secret))
    return found


OPTIONS: Mapping[str, Option] = _options()
"""All options by name, in the order in which `--help` shows them."""


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Config:
    """Put the options together: flags before environment variables before the TOML file before defaults.

    `flags` are by name, as strings or as they are. Raises `ConfigError` for an option that does not exist
    or has a value that it cannot have.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values.update(_from_file(file))
    for option in OPTIONS.values():
        text = environment.get(option.variable)
        if text is not None and not _of_kubernetes(option.variable, text):
            values[option.name] = _convert(option, text, option.variable)
    for name, value in flags.items():
        if name not in OPTIONS:
            raise ConfigError(f"there is no option {name!r}{_meant(name)}")
        values[name] = _convert(OPTIONS[name], value, OPTIONS[name].flag)
    if values.get("dev") and "presence_events" not in values:
        values["presence_events"] = True
    _check(values)
    limits = _pick(ConnectionLimits, values)
    rates = _pick(RateLimits, values)
    outbox = _pick(OutboxLimits, values)
    transfers = _pick(TransferLimits, values)
    return Config(
        server=_pick(ServerOptions, values),
        tls=_pick(TlsOptions, values),
        transport=_pick(TransportLimits, values),
        compression=_pick(CompressionOptions, values),
        hub=msgspec.structs.replace(
            _pick(HubOptions, values),
            limits=limits,
            transfers=transfers,
            rates=rates,
            outbox=outbox,
            origin=_pick(OriginOptions, values),
        ),
        history=_pick(HistoryLimits, values),
        store=_pick(StoreOptions, values),
        engine=_pick(EngineOptions, values),
        redis=_pick(RedisOptions, values),
        nats=_pick(NatsOptions, values),
        auth=_pick(AuthOptions, values),
    )


# In every container beside a Service named hubbub or hubbub-db Kubernetes sets HUBBUB_SERVICE_HOST,
# HUBBUB_PORT_8000_TCP_ADDR, HUBBUB_DB_SERVICE_PORT and many more, among them HUBBUB_PORT=tcp://10.0.0.1:8000.
_KUBERNETES_NAME = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")

# How alike two names are when one is taken for the other misspelt: from 0 to 1, as `difflib` counts. HUBBUB_PROT is
# PORT at 0.75; at less than this, names that have nothing to do with ours are guessed to be.
_ALIKE = 0.7


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like options and are none, each with the one that it may be meant for.

    Others that begin with HUBBUB_ cannot be refused: Kubernetes sets such, and whoever else likes to.
    """
    known = {option.variable for option in OPTIONS.values()} | {"HUBBUB_CONFIG", "HUBBUB_TOKEN"}
    names = [name.removeprefix("HUBBUB_") for name in known]
    found = {}
    for name, text in environment.items():
        if name.startswith("HUBBUB_") and name not in known and not _of_kubernetes(name, text):
            close = difflib.get_close_matches(name.removeprefix("HUBBUB_"), names, n=1, cutoff=_ALIKE)
            if close:
                found[name] = "HUBBUB_" + close[0]
    return found


def _of_kubernetes(name: str, text: str) -> bool:
    return bool(_KUBERNETES_NAME.search(name) or _KUBERNETES_VALUE.match(text))


S = typing.TypeVar("S", bound=Struct)


def _pick(section: type[S], values: Mapping[str, Any]) -> S:
    names = {field.name for field in msgspec.structs.fields(section)}
    return section(**{name: value for name, value in values.items() if name in names})


def _from_file(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    values = {}
    for name, value in found.items():
        if name not in OPTIONS:
            raise ConfigError(f"{file} has no option {name!r}{_meant(name)}")
        values[name] = _convert(OPTIONS[name], value, f"{name} in {file}")
    return values


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), OPTIONS, n=1)
    return f": did you mean {close[0]}?" if close else ": `hubbub serve --help` lists them"


def _convert(option: Option, value: Any, spelled: str) -> Any:
    try:
        if option.name in _TABLES:
            return _table(_TABLES[option.name], value, spelled)
        found = msgspec.convert(_listed(option, value), option.type, strict=False, dec_hook=_read)
    except msgspec.MsgspecError as error:
        # Such as "Expected `int` <= 65535".
        shown = "what it is" if option.secret else repr(value)
        # Where in a table or a list says nothing to who wrote it.
        said = str(error).removesuffix(" - at `$[...]`")
        # Only how it begins: a pattern in it is not to be changed.
        said = said[:1].lower() + said[1:]
        if said.startswith("expected `bool`"):
            said = "write true or false"
        raise ConfigError(f"{spelled} cannot be {shown}: {said} ({option.description})") from None
    if option.name == "origins":
        _look_at_origins(found, spelled)
    return found


# Types of ours among those of options, and how each is read.
_READERS: Mapping[type, Callable[[Any], Any]] = {
    Rate: Rate.parse,
    TrustedProxies: lambda value: TrustedProxies(value if isinstance(value, list | tuple) else [value]),
}


def _read(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    try:
        return _READERS[kind](value)
    except ConfigError as error:
        # So that it is said as everything else is that msgspec refuses.
        raise ValueError(str(error)) from None


def _look_at_origins(origins: tuple[str, ...], spelled: str) -> None:
    try:
        OriginOptions(origins=origins)
    except ConfigError as error:
        raise ConfigError(f"{spelled}: {error}") from None


def _listed(option: Option, value: Any) -> Any:
    """A table that came as text is JSON; a list is that, or names with commas between them."""
    if isinstance(option.default, dict) and isinstance(value, str):
        return msgspec.json.decode(value)
    if not isinstance(option.default, tuple | TrustedProxies) or not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return msgspec.json.decode(text)
    return [part.strip() for part in text.split(",") if part.strip()]


# The options that are tables of tables, each with what makes one entry out of its name and its values.
_TABLES: Mapping[str, Callable[[str, Any], Any]] = {"rooms": room_options, "roles": role_options}


def _table(entry: Callable[[str, Any], Any], value: Any, spelled: str) -> dict[str, Any]:
    """A table of tables, or the same as JSON."""
    if isinstance(value, str):
        value = msgspec.json.decode(value)
    found = msgspec.convert(value, dict[str, dict[str, Any]])
    try:
        return {name: entry(name, options) for name, options in found.items()}
    except ConfigError as error:
        raise ConfigError(f"{spelled}: {error}") from None


def _check(values: Mapping[str, Any]) -> None:
    """What single values cannot tell."""

    def value(name: str) -> Any:
        return values.get(name, OPTIONS[name].default)

    if value("silence_limit") <= value("ping_interval"):
        raise ConfigError("silence_limit must be longer than ping_interval: a ping needs time to be answered")
    if value("envelope_ping_interval") <= value("pong_timeout"):
        raise ConfigError("envelope_ping_interval must be longer than pong_timeout: one ping at a time")
    if value("unfinished_size") < value("message_size"):
        raise ConfigError("unfinished_size must be at least message_size: one message must have room")
    if value("engine") and value("data"):
        raise ConfigError("channels are in `engine` or in `data`: leave one of the two out")
