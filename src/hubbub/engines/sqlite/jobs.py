"""What the store is asked to do: each job carries its outcome back to who asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from hubbub.engines.base import Accepted
from hubbub.types import Publication

if TYPE_CHECKING:
    from hubbub.engines.sqlite.writer import Writer

__all__ = ["Acknowledge", "Append", "Ask", "Job"]

# gc=False below: a job lives for milliseconds, and what it refers to never refers back to it.


class Append(Struct, gc=False):
    """Append a publication to its channel; a volatile one only keeps its place among the others."""

    channel: str
    publication: Publication
    volatile: bool
    # The session not to tell.
    origin: str | None
    done: Callable[[Any], object]
    outcome: Accepted | Exception | None = None
    # As JSON, once it has its place.
    body: bytes | None = None

    @property
    def stores(self) -> bool:
        """Whether it needs the file to take something."""
        return not self.volatile


class Acknowledge(Struct, gc=False):
    """Move a user's cursor; the outcome are the publications whose receipts are due, None beyond the inbox's end."""

    user: str
    seq: int
    done: Callable[[Any], object]
    outcome: list[Publication] | Exception | None = None

    @property
    def stores(self) -> bool:
        """Whether it needs the file to take something."""
        return True


class Ask(Struct):
    """Ask something that must see what was asked for before."""

    question: Callable[[Writer], Any]
    done: Callable[[Any], object]
    # It writes, in a transaction of its own: where others fail for want of space, this may make some.
    alone: bool = False
    outcome: Any = None

    @property
    def stores(self) -> bool:
        """Whether it needs the file to take something."""
        return self.alone


Job = Append | Acknowledge | Ask
