"""The streams that hold the channels: made when they are needed, and looked at whether they are what they were.

A stream's epoch stands in its metadata. JetStream itself does not notice that it has lost something: after a power cut,
or with an older copy of its files, it gives numbers a second time. So each node knows the newest message that it has
seen, and compares after each interruption and every few seconds; who misses something gives the stream another epoch.

How large a message of a stream may be JetStream sees to. It begins with little and grows with what is published: so who
reads knows how much may answer, and asks for no more than its connection takes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from hubbub.core.log import HistoryLimits, Retention
from hubbub.engines.nats.acks import Error
from hubbub.engines.nats.link import Link
from hubbub.engines.nats.notes import seconds, stamp_of
from hubbub.errors import ConfigError, Unavailable

__all__ = ["EPOCH", "Stream", "Streams"]

log = logging.getLogger("hubbub.engines.nats")

EPOCH: Final = "hubbub-epoch"
"""Where the epoch stands in a stream's metadata."""

# And where less was kept of each channel than is now: up to which place, and how much.
_RESIZED: Final = "hubbub-resized"

# Bytes of the largest message of a log, with its head, before a larger one comes, and in which steps that grows; and of
# an entry about a user.
_USUAL: Final = 262_144
_STEP: Final = 1_048_576
_ENTRY: Final = 65_536
# Where there is no limit but that of the server.
_ANY: Final = 1 << 31

# What JetStream says where a stream is not there, or has been made by somebody else meanwhile.
_NOT_FOUND: Final = 10059
_IN_USE: Final = 10058
# Where there is no space for what the stream may hold.
_NO_SPACE: Final = (10047, 10028, 10077)
# Seconds for which JetStream knows ids at least.
_SHORTEST: Final = 0.1
# Where it is one server, and more are wanted.
_NO_CLUSTER: Final = 10074
# Nanoseconds.
_SECOND: Final = 1_000_000_000


class _State(Struct, frozen=True):
    first_seq: int = 0
    last_seq: int = 0
    last_ts: str = ""


class _Stream(Struct, frozen=True):
    error: Error | None = None
    config: dict[str, Any] = field(default_factory=dict)
    state: _State = field(default_factory=_State)
    created: str = ""


class Stream:
    """One stream as this node knows it."""

    __slots__ = (
        "config",
        "created",
        "doubted",
        "epoch",
        "heard",
        "kind",
        "largest",
        "mark",
        "name",
        "resized",
        "seen",
        "stamp",
        "turn",
    )

    def __init__(self, kind: str, name: str, config: dict[str, Any]) -> None:
        self.kind = kind
        self.name = name
        self.config = config
        # Empty while it is not known whether the stream is there.
        self.epoch = ""
        # When it was made, in seconds of the Unix epoch by the clock of NATS.
        self.created = 0.0
        # The newest message that this node knows of; the newest that the stream itself has told of, which it does in
        # order; and the newest of which it is known when JetStream took it.
        self.seen = 0
        self.heard = 0
        self.mark = 0
        self.stamp = b""
        # Up to where less was kept of each channel than is now, and how many messages.
        self.resized = (0, 0)
        # Bytes of the largest message that it takes.
        self.largest = _USUAL
        # One looks at a time.
        self.turn = asyncio.Lock()
        # Whether it may be another one than it was: until it is looked at, nobody knows whose a number is.
        self.doubted = False

    @property
    def sure(self) -> bool:
        """Whether it is known which stream it is."""
        return bool(self.epoch) and not self.doubted

    def saw(self, seq: int, stamp: bytes) -> None:
        """There is a message in the stream."""
        self.seen = max(self.seen, seq)
        if stamp and seq > self.mark:
            self.mark, self.stamp = seq, stamp


class Streams:
    """The streams that this node has to do with."""

    def __init__(self, link: Link, prefix: str, limits: HistoryLimits, replicas: int) -> None:
        self._link = link
        self._prefix = prefix
        self._limits = limits
        self.replicas = replicas
        self._streams: dict[str, Stream] = {}
        # Told when a stream has another epoch than it had.
        self.lost: Callable[[Stream], None] = lambda stream: None

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def of(self, kind: str, retention: Retention) -> Stream:
        """The stream for a kind of channel; not looked at yet where it is new here."""
        stream = self._streams.get(kind)
        if stream is None:
            config = self._config(kind, retention)
            stream = self._streams[kind] = Stream(kind, config["name"], config)
        return stream

    def keyed(self, kind: str, *, told: bool = False) -> Stream:
        """A stream that keeps the newest message of each subject, and `told`: says on the bus what is stored."""
        stream = self._streams.get(kind)
        if stream is None:
            config = self._common(kind, f"{self._prefix}.{kind}.>")
            config |= {"max_msgs_per_subject": 1, "allow_msg_ttl": True, "max_msg_size": _ENTRY}
            if told:
                config["republish"] = {"src": f"{self._prefix}.{kind}.>", "dest": f"{self._prefix}.{kind}-bus.>"}
            stream = self._streams[kind] = Stream(kind, config["name"], config)
        return stream

    def _config(self, kind: str, retention: Retention) -> dict[str, Any]:
        window = max(self._limits.dedupe_window, _SHORTEST)
        config = self._common(kind, f"{self._prefix}.log.{kind}.*")
        config |= {
            # One more than is kept for people: where it is there, it is certain that nothing behind it was dropped.
            "max_msgs_per_subject": retention.size + 1,
            # An id is known as long as there may be a message to which it belongs.
            "max_age": int(max(retention.age, window) * _SECOND),
            "duplicate_window": int(window * _SECOND),
            "republish": {
                "src": f"{self._prefix}.log.{kind}.*",
                "dest": f"{self._prefix}.bus.{kind}.{{{{wildcard(1)}}}}",
            },
        }
        if not retention.pinned and not kind.startswith("server-"):
            # JetStream sets so much aside at once; what servers tell each other is little.
            config["max_bytes"] = self._limits.history_bytes
        return config

    def _common(self, kind: str, subjects: str) -> dict[str, Any]:
        return {
            "name": f"{self._prefix}-{kind}",
            "subjects": [subjects],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "allow_direct": True,
            "num_replicas": self.replicas,
        }

    # --------------------------------------------------------------------------------------------- looking

    async def ready(self, stream: Stream) -> None:
        """Be sure that `stream` is there; raises `Unavailable`."""
        if stream.sure:
            return
        async with stream.turn:
            # Whoever was before may have looked.
            if not stream.sure:
                await self._look_now(stream)

    async def make_sure(self, stream: Stream) -> None:
        """Nobody answers for `stream`: look what has become of it. Raises `Unavailable`."""
        async with stream.turn:
            await self._look_now(stream)

    async def make_room(self, stream: Stream, size: int) -> None:
        """Let `stream` take messages of `size` bytes; raises `Unavailable`."""
        async with stream.turn:
            found = self._good(await self._api(f"STREAM.INFO.{stream.name}"), stream)
            if _largest(found) < size:
                changed = {**found.config, "max_msg_size": -(-size // _STEP) * _STEP}
                found = self._good(await self._api(f"STREAM.UPDATE.{stream.name}", changed), stream)
                # Before there is any.
                self._tell(stream, stream.epoch, _largest(found))
            stream.largest = _largest(found)

    async def _look_now(self, stream: Stream) -> None:
        try:
            await self._look(stream)
        except ConfigError as error:
            log.error("%s", error)
            raise Unavailable(str(error)) from None

    @property
    def doubted(self) -> bool:
        """Whether one of them was not there when something was published."""
        return any(stream.doubted for stream in self._streams.values())

    def told(self, body: bytes) -> None:
        """Some node has given a stream an epoch, or takes larger messages in it.

        Where the epoch is not known here, the stream is looked at soon.
        """
        kind, epoch, largest = [*body.decode(errors="replace").split(" "), "", ""][:3]
        stream = self._streams.get(kind)
        if stream is None:
            return
        if stream.epoch != epoch:
            stream.doubted = True
        if largest.isascii() and largest.isdigit():
            stream.largest = max(stream.largest, min(_ANY, int(largest[:10])))

    async def look_at_all(self) -> None:
        """Look whether each stream is what it was; raises `Unavailable`."""
        for stream in list(self._streams.values()):
            try:
                await self.look(stream)
            except ConfigError as error:
                # The others are good enough, and this may have been so far; whoever needs it looks again.
                log.error("%s", error)

    async def look(self, stream: Stream) -> None:
        """Look whether `stream` is what it was, make it where it is missing, and say where it has lost something."""
        async with stream.turn:
            await self._look(stream)

    async def _look(self, stream: Stream) -> None:
        # As it is now: what comes while the answer is on its way is not in it.
        seen, mark, stamp = stream.seen, stream.mark, stream.stamp
        found = await self._find(stream)
        # At once: what another node says of it from now on is newer.
        stream.largest = _largest(found)
        metadata = found.config.get("metadata", {})
        place, most = metadata.get(_RESIZED, "0 0").split()
        epoch, stream.resized = metadata.get(EPOCH, ""), (int(place), int(most))
        lost = found.state.last_seq < seen or (mark and await self._replaced(stream, mark, stamp))
        if not epoch or (epoch == stream.epoch and lost):
            log.error("NATS has lost messages of the stream %s: it goes on in another epoch", stream.name)
            epoch = await self._change(stream, epoch)
        before, stream.epoch = stream.epoch, epoch
        stream.created = seconds(found.created.encode()) if found.created else 0.0
        stream.doubted = False
        if before and before != epoch:
            stream.seen = stream.heard = stream.mark = 0
        stream.saw(found.state.last_seq, found.state.last_ts.encode())
        if before and before != epoch:
            self.lost(stream)

    async def _find(self, stream: Stream) -> _Stream:
        found = await self._api(f"STREAM.INFO.{stream.name}")
        if found.error is None:
            wanted = {name: value for name, value in stream.config.items() if found.config.get(name) != value}
            # Once for each start: of two nodes with other options the last to start decides, and not both in turns.
            if not wanted or stream.epoch:
                return found
            metadata = found.config.get("metadata", {})
            most = found.config.get("max_msgs_per_subject", 0)
            if most < stream.config["max_msgs_per_subject"]:
                metadata = {**metadata, _RESIZED: f"{found.state.last_seq} {most}"}
            # Options have changed; the metadata, and what an operator has set beside ours, stay.
            changed = {**found.config, **wanted, "metadata": metadata}
            return self._good(await self._api(f"STREAM.UPDATE.{stream.name}", changed), stream)
        if found.error.err_code != _NOT_FOUND:
            return self._good(found, stream)
        wanted = {"max_msg_size": _USUAL, **stream.config, "metadata": {EPOCH: secrets.token_hex(8)}}
        made = await self._api(f"STREAM.CREATE.{stream.name}", wanted)
        if made.error is not None and made.error.err_code == _IN_USE:
            # By another node, in this moment.
            made = await self._api(f"STREAM.INFO.{stream.name}")
        elif made.error is None and stream.epoch:
            log.error("NATS has lost the stream %s: it begins anew", stream.name)
            self._tell(stream, made.config.get("metadata", {}).get(EPOCH, ""))
        return self._good(made, stream)

    async def _replaced(self, stream: Stream, mark: int, stamp: bytes) -> bool:
        """Whether another message stands where this node has seen one."""
        try:
            answer = await self._link.call(f"$JS.API.DIRECT.GET.{stream.name}", msgspec.json.encode({"seq": mark}))
        except TimeoutError:
            raise Unavailable("JetStream does not answer") from None
        # One that is gone says nothing: retention may have dropped it.
        return answer.status == 0 and stamp_of(answer.head) != stamp

    async def extent(self, stream: Stream) -> tuple[int, int]:
        """The first place in the stream, also where there is nothing in it, and the last; raises `Unavailable`."""
        state = self._good(await self._api(f"STREAM.INFO.{stream.name}"), stream).state
        return state.first_seq, state.last_seq

    async def _change(self, stream: Stream, epoch: str) -> str:
        """Give the stream another epoch, unless somebody has done so already."""
        found = self._good(await self._api(f"STREAM.INFO.{stream.name}"), stream)
        metadata = found.config.get("metadata", {})
        if metadata.get(EPOCH, "") == epoch:
            metadata = {**metadata, EPOCH: secrets.token_hex(8)}
            self._good(await self._api(f"STREAM.UPDATE.{stream.name}", {**found.config, "metadata": metadata}), stream)
        new: str = metadata[EPOCH]
        self._tell(stream, new)
        return new

    def _tell(self, stream: Stream, epoch: str, largest: int = 0) -> None:
        """All nodes have to know."""
        self._link.tell(f"{self._prefix}.control", f"{stream.kind} {epoch} {largest}".encode())

    async def _api(self, what: str, said: Any = None) -> _Stream:
        return await self._link.api(what, said, _Stream)

    def _good(self, found: _Stream, stream: Stream) -> _Stream:
        error = found.error
        if error is None:
            return found
        if error.err_code in _NO_SPACE:
            raise ConfigError(
                f"NATS has no space for the stream {stream.name} ({error.description}): "
                "give it more, or lower history_bytes"
            )
        if error.err_code == _NO_CLUSTER:
            raise ConfigError(
                f"NATS keeps nothing on {self.replicas} servers ({error.description}): set nats_replicas to 1"
            )
        if error.code >= 500 or error.err_code == _NOT_FOUND:
            # The latter where it was deleted in this moment.
            raise Unavailable(f"JetStream is not available: {error.description}")
        raise ConfigError(f"NATS does not make the stream {stream.name} ({error.description}): look at what it allows")


def _largest(found: _Stream) -> int:
    largest: int = found.config.get("max_msg_size", -1)
    return largest if largest > 0 else _ANY
