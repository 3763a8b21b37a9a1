"""One target under atheris, in a process of its own.

usage: python -m fuzz.worker TARGET [options and folders of libFuzzer]
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    """Fuzz until something is found or the time is up; does not return."""
    # No package of the tests' environment, and without types.
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["hubbub"]):
        targets = importlib.import_module("fuzz.targets").TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[2:]], targets[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
