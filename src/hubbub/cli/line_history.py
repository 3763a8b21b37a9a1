"""What was typed at the prompt of `hubbub connect`, kept for the arrow keys of another day."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History, InMemoryHistory

__all__ = ["LineHistory", "history_file", "open_history"]

# Lines, at least; the file may grow to twice as many.
_KEPT: Final = 1_000


class LineHistory(History):
    """What was typed, kept in a file that only its user can read, one JSON string a line."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where there can be no such file."""
        super().__init__()
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        # It may have been there before, with more rights.
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)

    def load_history_strings(self) -> list[str]:
        """The newest first; whatever is older than the last thousand goes."""
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > 2 * _KEPT:
            lines = lines[-_KEPT:]
            self._path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        found = []
        for line in reversed(lines[-_KEPT:]):
            with suppress(ValueError):
                found.append(str(json.loads(line)))
        return found

    def store_string(self, string: str) -> None:
        """Add the newest."""
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(string) + "\n")


def history_file() -> Path:
    """Where what was typed is kept (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored, says the standard.
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "hubbub" / "history"


def open_history() -> History:
    """What was typed before, where it can be kept."""
    try:
        return LineHistory(history_file())
    except (OSError, RuntimeError):
        # No home, or one that cannot be written to.
        return InMemoryHistory()
