"""Your code between a message and its room: handlers by type, typed content, middleware."""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import re
import threading
import time
import typing
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeGuard, TypeVar

import msgspec
from msgspec import Raw

from hubbub.errors import HubbubError, Reject, Unavailable
from hubbub.protocol.codes import ErrorCode
from hubbub.protocol.content import encode_json, is_bytes, json_of, pack_bytes, read_json, unpack_bytes
from hubbub.protocol.conversation import is_name
from hubbub.protocol.envelope import Envelope, Fault, PackedEnvelope
from hubbub.types import NOTHING

if TYPE_CHECKING:
    from hubbub.engines.base import Accepted
    from hubbub.hub.session import Session

__all__ = [
    "Handler",
    "Message",
    "Middleware",
    "Next",
    "Outcome",
    "Pipeline",
    "Threads",
    "encode_content",
    "envelope_of",
    "is_binary",
    "pass_on",
    "stuck_threads",
    "user_named",
]

# How the names of the threads begin in which handlers block.
_THREAD_NAME = "hubbub-handler"

# What no handler can change in place: most content is text, and is not encoded to find that out.
_UNCHANGEABLE = frozenset({str, int, float, bool, bytes, type(None)})

T = TypeVar("T")

_where = re.compile(r" - at `(\$[^`]*)`$")


class Message(Generic[T]):
    """A message on its way, as a handler sees it: read it, change it, return it to let it go on.

    `content` is decoded when it is first read; in a handler that asks for `Message[Order]` it is an `Order`.
    The message goes on with the sender's own bytes unless its content is set, or changed in place. Content of bytes is
    `bytes`, whatever the sender's codec made of them.
    """

    __slots__ = (
        "_as_read",
        "_content",
        "_decoded",
        "_sent",
        "echo",
        "id",
        "receipt",
        "room",
        "session",
        "to",
        "type",
        "volatile",
    )

    def __init__(self, envelope: Envelope, session: Session) -> None:
        self.type = envelope.type
        # The recipient's user id, or the room, or neither: everyone.
        self.to = envelope.to
        self.room = envelope.room
        self.id = envelope.id
        self.receipt = envelope.receipt
        self.echo = envelope.echo
        self.volatile = envelope.volatile
        # The session that the message came from.
        self.session = session
        # What was sent; None once other content is set.
        self._sent: Envelope | None = envelope
        # What was read, encoded before anybody could change it in place; None where nobody can have.
        self._as_read: Raw | None = None
        self._content: Any = None
        self._decoded = False

    def __repr__(self) -> str:
        target = f"to={self.to!r}" if self.to else f"room={self.room!r}" if self.room else "to everyone"
        # No content: messages end up in logs.
        return f"<Message {self.type!r} from {self.from_!r} {target}>"

    @property
    def from_(self) -> str:
        """The sender's user id."""
        return self.session.user

    @property
    def content(self) -> T:
        """The payload; None where the sender gave none. Raises `Reject` when it is not what was asked for."""
        if not self._decoded:
            self._read(_decode_any)
        return self._content  # type: ignore[no-any-return]

    @content.setter
    def content(self, content: T) -> None:
        self._content = content
        self._sent = None
        self._decoded = True

    def _read(self, decode: Callable[[Raw], Any]) -> None:
        """Read the content as a handler wants it, also where middleware has read or set it before."""
        written = _written(self)
        self._content = _read(written, decode)
        self._decoded = True
        self._as_read = None if type(self._content) in _UNCHANGEABLE else _encoded_as_read(self._content)

    @property
    def binary(self) -> bool:
        """Whether the content is bytes."""
        sent = self._sent
        if sent is None:
            return is_binary(self._content)
        return sent.binary or (type(sent) is PackedEnvelope and is_bytes(sent.content))


class _Written(NamedTuple):
    """A content as it goes on: what kind of envelope holds it, and whether it is base64 of bytes there."""

    kind: type[Envelope]
    content: Raw
    binary: bool = False


def _written(message: Message[Any]) -> _Written:
    """The content of a message: the sender's own unless it was set, or changed in place; raises `HubbubError`."""
    sent, content = message._sent, message._content
    if sent is not None and (message._as_read is None or encode_content(content) == message._as_read):
        return _Written(type(sent), sent.content, sent.binary)
    if is_binary(content):
        return _Written(PackedEnvelope, pack_bytes(bytes(content)))
    return _Written(Envelope, encode_content(content))


def envelope_of(message: Message[Any], fields: dict[str, Any]) -> Envelope:
    """An envelope of `fields` and the message's content.

    Raises `ValidationError` for a field that is wrong, `HubbubError` for content that cannot be sent.
    """
    written = _written(message)
    # msgspec checks what it converts, not what Python code assigns.
    envelope = msgspec.convert(fields, written.kind)
    envelope.content, envelope.binary = written.content, written.binary
    return envelope


def _read(written: _Written, decode: Callable[[Raw], Any]) -> Any:
    """A content as who asked for it wants it: bytes are bytes for whoever has not asked for something else."""
    if decode is _decode_any or decode is _decode_bytes:
        if written.binary:
            return base64.b64decode(msgspec.json.decode(written.content, type=str))
        if written.kind is PackedEnvelope and (found := unpack_bytes(written.content)) is not None:
            return found
    return decode(json_of(written.content)[0] if written.kind is PackedEnvelope else written.content)


def is_binary(content: object) -> TypeGuard[bytes | bytearray | memoryview]:
    """Whether a content of the application is bytes, and not something to be said in JSON."""
    return isinstance(content, bytes | bytearray | memoryview)


def _encoded_as_read(content: object) -> Raw:
    try:
        return encode_content(content)
    except HubbubError:
        # It may still be kept, or be replaced by what can be sent.
        return NOTHING


def encode_content(content: object) -> Raw:
    """Any content as encoded JSON: what msgspec can encode, or a pydantic model; raises `HubbubError`."""
    if content is None or (isinstance(content, Raw) and not memoryview(content).nbytes):
        return NOTHING
    try:
        return encode_json(content)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise HubbubError(f"this content cannot be sent as JSON: {error}") from error


def user_named(value: object) -> str:
    """The user that an authenticate hook named, empty where it named nobody; raises `HubbubError` for what is no name.

    The value is in neither the error nor the log: it may be somebody's secret.
    """
    if value is None or value == "":
        return ""
    if not is_name(value):
        raise HubbubError(
            "the authenticate hook returned no user id: that is a string of 1 to 128 characters, none of them a "
            f"control character; it returned {'another string' if isinstance(value, str) else type(value).__name__}"
        )
    return value


Next = Callable[[Message[Any]], Awaitable["Message[Any] | None"]]
Handler = Callable[[Message[Any]], "Message[Any] | None | Awaitable[Message[Any] | None]"]
Middleware = Callable[[Message[Any], Next], Awaitable["Message[Any] | None"]]


class Threads:
    """A bounded pool for code that blocks: so many threads, so many waiting, and no more."""

    def __init__(self, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=_THREAD_NAME)
        self._most = threads + queue
        # Calls that run or wait.
        self._taken = 0

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` in a thread; raises `Unavailable` when the queue is full."""
        if self._taken >= self._most:
            raise Unavailable("the queue for blocking handlers is full")
        self._taken += 1
        call = asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(_call, function, *arguments))
        # Counted until the thread is really free: a caller that gave up does not stop it.
        call.add_done_callback(self._done)
        return await asyncio.shield(call)

    def close(self) -> None:
        """Wait for nothing more; a call that is still running ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, call: asyncio.Future[Any]) -> None:
        self._taken -= 1
        if not call.cancelled():
            call.exception()


def _call(function: Callable[..., T], *arguments: Any) -> T:
    try:
        return function(*arguments)
    except StopIteration as error:
        # A future cannot carry it: whoever waits for the call would wait for ever.
        raise RuntimeError("the function raised StopIteration") from error


def stuck_threads(patience: float) -> int:
    """How many threads of handlers that block are still running, `patience` seconds after their pool was closed."""
    deadline = time.monotonic() + patience
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREAD_NAME)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sum(thread.is_alive() for thread in threads)


class Outcome(NamedTuple):
    """What became of a message that the application did not refuse."""

    # As the handlers left it.
    envelope: Envelope
    # Where it stands; None where the application kept it.
    accepted: Accepted | None


class Pipeline:
    """The handlers and middleware of a hub: which code a message of a type goes through."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, Callable[[Raw], Any]]] = {}
        self._middleware: list[Middleware] = []

        # Whether there is any code of the application for a message to go through.
        self.used = False

        # Each type's whole chain, put together once.
        self._chains: dict[str, Next] = {}

        # What is being handled, by (channel, user, id): a retry waits for what becomes of the first. A session
        # handles one message at a time, so there are never more of them than sessions.
        self.handling: dict[tuple[str, str, str], asyncio.Future[Outcome | Fault]] = {}

        # Set when the hub starts: handlers that are plain functions run there.
        self.threads: Threads | None = None

    def handles(self, type: str) -> bool:
        """Whether a handler is registered for `type`."""
        return type in self._handlers

    def add_handler(self, type: str, handler: Handler) -> None:
        """Let `handler` see each message of `type`; raises `HubbubError` when there is one already."""
        if type in self._handlers:
            raise HubbubError(f"there is a handler for {type!r} already: one type, one handler")
        self._handlers[type] = (handler, _content_decoder(handler))
        self.used = True
        self._chains.clear()

    def add_middleware(self, middleware: Middleware) -> None:
        """Put `middleware` around all handlers; what was added first is outermost."""
        if not inspect.iscoroutinefunction(middleware):
            raise HubbubError(f"middleware must be `async def`: {getattr(middleware, '__name__', middleware)!r}")
        self._middleware.append(middleware)
        self.used = True
        self._chains.clear()

    def chain(self, type: str) -> Next | None:
        """What a message of `type` goes through, or None when it goes straight on."""
        if type not in self._handlers and not self._middleware:
            return None
        chain = self._chains.get(type)
        if chain is None:
            chain = self._innermost(type)
            for middleware in reversed(self._middleware):
                chain = functools.partial(_around, middleware, chain)
            # Types come from clients: the cache must not grow with what they think of.
            if type in self._handlers:
                self._chains[type] = chain
        return chain

    def _innermost(self, type: str) -> Next:
        registered = self._handlers.get(type)
        if registered is None:
            return pass_on
        handler, decode = registered
        is_async = inspect.iscoroutinefunction(handler)

        async def call(message: Message[Any]) -> Message[Any] | None:
            if decode is not _decode_any:
                # Before the handler: content that is wrong never reaches it.
                message._read(decode)
            if is_async:
                return await typing.cast("Awaitable[Message[Any] | None]", handler(message))
            assert self.threads is not None
            return await self.threads.run(typing.cast("Callable[..., Message[Any] | None]", handler), message)

        return call


async def pass_on(message: Message[Any]) -> Message[Any] | None:
    """What a message goes through that no handler is for."""
    return message


async def _around(middleware: Middleware, chain: Next, message: Message[Any]) -> Message[Any] | None:
    return await middleware(message, chain)


def _decode_any(raw: Raw) -> Any:
    try:
        return read_json(bytes(raw) or b"null")
    except ValueError as error:
        raise Reject(ErrorCode.INVALID_CONTENT, str(error), where="$") from None


def _decode_bytes(raw: Raw) -> bytes:
    # Who sends bytes says so: a string that happens to be base64 is a string.
    raise Reject(ErrorCode.INVALID_CONTENT, "Expected bytes", where="$")


def _content_decoder(handler: Handler) -> Callable[[Raw], Any]:
    """How the content for `handler` is decoded: as the `T` of its parameter's `Message[T]`."""
    try:
        hints = typing.get_type_hints(handler)
        parameters = list(inspect.signature(handler).parameters)
    except (NameError, TypeError, ValueError) as error:
        raise HubbubError(
            f"the annotations of {getattr(handler, '__name__', handler)!r} cannot be read: {error}"
        ) from error
    annotation = hints.get(parameters[0]) if parameters else None
    if typing.get_origin(annotation) is not Message:
        return _decode_any
    (wanted,) = typing.get_args(annotation)
    if wanted is Any:
        return _decode_any
    if wanted is bytes:
        return _decode_bytes
    validate = getattr(wanted, "model_validate_json", None)
    if validate is not None:
        return functools.partial(_decode_pydantic, validate)
    return functools.partial(_decode_msgspec, msgspec.json.Decoder(wanted))


def _decode_msgspec(decoder: msgspec.json.Decoder[Any], raw: Raw) -> Any:
    try:
        return decoder.decode(raw if memoryview(raw).nbytes else b"null")
    except msgspec.DecodeError as error:
        # Not only what is of another type: JSON can say what nothing here can hold, such as 1e999.
        text = str(error)
        where = _where.search(text)
        raise Reject(ErrorCode.INVALID_CONTENT, _where.sub("", text), where=where.group(1) if where else "$") from None


def _decode_pydantic(validate: Callable[..., Any], raw: Raw) -> Any:
    try:
        return validate(bytes(raw) or b"null")
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise Reject(ErrorCode.INVALID_CONTENT, "not what this type of message carries", where="$") from None
        first = errors(include_url=False, include_context=False, include_input=False)[0]
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise Reject(ErrorCode.INVALID_CONTENT, first["msg"], where=path) from None
