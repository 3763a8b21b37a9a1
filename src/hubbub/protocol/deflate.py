"""permessage-deflate (RFC 7692): what a client offers, what is agreed, one message made smaller and made whole again.

No message knows of the one before it: the server always asks for "no context takeover" in both directions. So a
connection keeps no zlib state (up to 300 KiB each) while it is idle, and a publication is compressed once, the same
bytes for everybody who agreed on the same window.
"""

from __future__ import annotations

import re
import zlib
from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["CompressionOptions", "Deflate", "Offer", "agree", "compress", "inflate", "is_dense", "read_offers"]


class CompressionOptions(Struct, frozen=True, kw_only=True):
    """Whether messages are compressed (permessage-deflate), and which."""

    compression: Annotated[bool, Meta(description="compress messages for clients that offer it")] = False
    # Below it the headers of a segment are most of what is sent, and zlib costs what it costs for nothing.
    compression_threshold: Annotated[
        int, Meta(ge=0, description="bytes from which on a message to a client is compressed")
    ] = 256
    # A third fewer bytes than level 1 saves beyond it, for next to no time. It is the text of strangers that is
    # compressed: 64 KiB chosen to be slow take 1.6 ms at level 4, 8 ms at 6, and 130 ms at 9.
    compression_level: Annotated[
        int, Meta(ge=1, le=9, description="from 1, fast, to 9, small; text can be made to be slow above 4")
    ] = 4


# ------------------------------------------------------------------------------------------------ agreeing

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Elements of a list may be empty (RFC 2616 §2.1, which RFC 6455 §9.1 goes by).
_SEPARATORS = re.compile(r"[ \t,]*")
_NAME = re.compile(rf"({_WORD})[ \t]*")
_PARAMETER = re.compile(rf';[ \t]*({_WORD})[ \t]*(?:=[ \t]*(?:({_WORD})|"((?:[^"\\]|\\.)*)")[ \t]*)?')
_ONE_WORD = re.compile(_WORD)
_WINDOW = re.compile(r"[89]|1[0-5]")

# The windows that are served: a client gets the largest of them that it allows (RFC 7692 §7.1.2.1). Each that is in
# use costs another compression of each publication, and between 12 bits and 15 lies 1 % of what is sent.
_WINDOWS = (15, 12, 9)


class Offer(Struct, frozen=True, gc=False):
    """One extension that a client offers, with its parameters in order; a parameter may have no value."""

    name: str
    parameters: tuple[tuple[str, str | None], ...]


class Deflate(Struct, frozen=True, gc=False):
    """What was agreed on: everything else is the same for all connections."""

    # The server refers back by no more than 2 to the power of this in bytes.
    window: int = 15
    # Whether the client asked for that.
    limited: bool = False

    @property
    def response(self) -> str:
        """What the server answers in Sec-WebSocket-Extensions (RFC 7692 §7.1)."""
        window = f"; server_max_window_bits={self.window}" if self.limited else ""
        return f"permessage-deflate; server_no_context_takeover; client_no_context_takeover{window}"


def read_offers(header: str) -> list[Offer] | None:
    """Read Sec-WebSocket-Extensions (RFC 6455 §9.1): the offers in the client's order; None where it is malformed."""
    offers: list[Offer] = []
    at = 0
    while True:
        at = _SEPARATORS.match(header, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if at == len(header):
            return offers
        name = _NAME.match(header, at)
        if name is None:
            return None
        at = name.end()
        parameters = []
        while (parameter := _PARAMETER.match(header, at)) is not None:
            at = parameter.end()
            value = parameter[2]
            if parameter[3] is not None:
                # What is in quotes is a token all the same.
                value = re.sub(r"\\(.)", r"\1", parameter[3])
                if _ONE_WORD.fullmatch(value) is None:
                    return None
            parameters.append((parameter[1], value))
        offers.append(Offer(name[1], tuple(parameters)))
        if at < len(header) and header[at] != ",":
            return None


def agree(offers: list[Offer]) -> Deflate | None:
    """Take the first offer that can be taken; None where there is none, and messages stay as they are."""
    return next((deflate for offer in offers if (deflate := _accept(offer)) is not None), None)


def _accept(offer: Offer) -> Deflate | None:
    """What is agreed on by taking an offer; None for one that must be declined (RFC 7692 §7.1)."""
    parameters = dict(offer.parameters)
    if offer.name != "permessage-deflate" or len(parameters) != len(offer.parameters):
        return None
    window = 15
    for name, value in offer.parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "client_max_window_bits":
            # No more than a hint: any window of the client's can be inflated.
            if value is not None and _WINDOW.fullmatch(value) is None:
                return None
        elif name == "server_max_window_bits":
            # zlib has no window of 8 bits: it would take 9 and refer back too far.
            if value is None or _WINDOW.fullmatch(value) is None or value == "8":
                return None
            window = next(served for served in _WINDOWS if served <= int(value))
        else:
            return None
    return Deflate(window, "server_max_window_bits" in parameters)


# --------------------------------------------------------------------------------------------- compressing

# The end of what a flush gives, which is not sent (RFC 7692 §7.2.1).
_FLUSHED = b"\x00\x00\xff\xff"

# Put behind a message that came: what was not sent, and an empty last block. Where the message is whole, that last
# block is found. Where it is not, something else is: but for one that is cut in a stored block, 4 bytes before its end,
# and gets the 4 that were not sent for them. Who cuts its own messages so may as well send those bytes.
_END = _FLUSHED + b"\x01\x00\x00\xff\xff"

# To look at a kilobyte takes 25 µs: a tenth of what it takes to find out at length, from so many bytes on.
_SAMPLE = 1_024
_WORTH_A_LOOK = 16_384

# How often deflate's last block may be in one message. It may be before the message's end (§7.2.3.4), which some
# libraries cannot help; each time costs a new zlib state, and two bytes are enough to ask for one.
_MOST_LAST_BLOCKS = 64


def compress(payload: bytes, window: int, level: int) -> bytes:
    """A message's compressed payload (RFC 7692 §7.2.1), with a window of 2 to the power of `window` at most."""
    # No larger window than the payload can fill: to clear 256 KiB takes ten times as long as to compress 1 KiB.
    fitting = min(window, max(10, len(payload).bit_length()))
    # Each time that it has filled its window zlib goes through its table, which takes longer than all the rest where a
    # small window has a large table. In a small one there is room for so few symbols that it begins a block, with new
    # codes, every few hundred bytes: 4.7 ms for 64 KiB that do not become shorter. Between the two it takes 1.3 ms.
    stream = zlib.compressobj(level, zlib.DEFLATED, -fitting, min(fitting - 3, 8))
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_FLUSHED)


def is_dense(payload: bytes) -> bool:
    """Whether a long payload looks as if nothing makes it shorter: a picture, or what has been compressed already."""
    if len(payload) < _WORTH_A_LOOK:
        return False
    # From the middle: what is said about a picture is text, and comes before it.
    start = (len(payload) - _SAMPLE) // 2
    return len(compress(payload[start : start + _SAMPLE], 10, 1)) >= _SAMPLE


def inflate(data: bytes, limit: int) -> bytes | None:
    """What a compressed payload stands for (RFC 7692 §7.2.2); None where that is longer than `limit` bytes.

    No more than one byte beyond the limit is ever made. Raises `ValueError` for what is no deflate, or ends in the
    middle (see `_END` for what can be known of that). 64 KiB made for it take 5 ms: who calls this says how often.
    """
    if not data:
        # Strictly one byte is missing, but there is nothing else that it could mean.
        return b""
    rest = data + _END
    parts: list[bytes] = []
    left, window = limit, b""
    for _ in range(_MOST_LAST_BLOCKS):
        stream = zlib.decompressobj(-15, zdict=window)
        try:
            part = stream.decompress(rest, left + 1)
        except zlib.error as error:
            raise ValueError(_DAMAGED) from error
        left -= len(part)
        if left < 0:
            return None
        if not stream.eof:
            break
        parts.append(part)
        rest = stream.unused_data
        if not rest:
            # Nearly always the only part, which is not copied then.
            return b"".join(parts)
        # What comes behind a last block may refer to what came before it: the RFC does not say that it must not.
        window = (window + part)[-32_768:]
    raise ValueError(_DAMAGED)


_DAMAGED = "the message is not compressed as agreed"
