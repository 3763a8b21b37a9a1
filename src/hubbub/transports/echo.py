"""A receiver that returns each message as it came: for conformance suites and first steps, in dev mode only."""

from __future__ import annotations

from hubbub.transports.base import Accept, Handshake, Writer

__all__ = ["Echo", "admit_echo"]


class Echo:
    """The receiver of one echoing connection."""

    __slots__ = ("_writer",)

    _writer: Writer

    def opened(self, writer: Writer) -> None:
        """See `Receiver.opened`."""
        self._writer = writer

    def received(self, message: str | bytes) -> None:
        """Send it back as the kind of message it was."""
        writer = self._writer
        if isinstance(message, str):
            writer.write(writer.framing(False)(message.encode()))
        else:
            writer.write(writer.framing(True)(message))

    def alive(self) -> None:
        """See `Receiver.alive`."""

    def blocked(self) -> None:
        """Who does not read gets nothing more to read: its own sending stops."""
        self._writer.pause_reading()

    def unblocked(self) -> None:
        """Go on."""
        self._writer.resume_reading()

    def closed(self, code: int, reason: str) -> None:
        """See `Receiver.closed`."""


async def admit_echo(handshake: Handshake) -> Accept:
    """Let anybody in."""
    return Accept(Echo())
