"""The contract is a module of the package: its asserts must explain themselves like those of tests."""

import pytest

pytest.register_assert_rewrite("hubbub.testing.engines")
