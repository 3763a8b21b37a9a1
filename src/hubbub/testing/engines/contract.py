"""All tests of the engine contract together."""

from __future__ import annotations

from hubbub.testing.engines.losing import Losing
from hubbub.testing.engines.members import Members
from hubbub.testing.engines.nodes import Nodes
from hubbub.testing.engines.publishing import Publishing
from hubbub.testing.engines.reading import Reading

__all__ = ["EngineContract"]


class EngineContract(Publishing, Reading, Members, Nodes, Losing):
    """The tests of one engine; a subclass named `Test…` says how to make it."""
