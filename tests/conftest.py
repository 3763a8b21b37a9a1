"""What all tests share: pytest must know of it before any of them is read."""

import pytest

# The engines' contract is a module of the package; its asserts must explain themselves like those of tests.
pytest.register_assert_rewrite("hubbub.testing.engines")
