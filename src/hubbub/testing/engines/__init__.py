"""The engine contract as tests: whoever writes an engine subclasses `EngineContract` and runs pytest.

Each promise in the docstrings of `hubbub.engines.base` is a test here. A test that an engine cannot take, because
its clock cannot be turned or it serves one process, is skipped and says so.

    import pytest

    pytest.register_assert_rewrite("hubbub.testing.engines")  # asserts that fail then show their values

    from hubbub.testing.engines import EngineContract

    class TestMyEngine(EngineContract):
        def engine(self, keep: int = 1000) -> Engine:
            return MyEngine(history_size=keep)

No plugin is needed: each test is a plain method that runs an event loop of its own.
"""

from hubbub.testing.engines.contract import EngineContract
from hubbub.testing.engines.ear import Ear, Told

__all__ = ["Ear", "EngineContract", "Told"]
