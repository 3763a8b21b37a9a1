"""A terminal for tests: what a program writes to it becomes lines of text, as a person would see them."""

from __future__ import annotations

import re

__all__ = ["Terminal"]

# A sequence that a terminal obeys, whole; or the beginning of one, at the end of what has come so far.
_sequence = re.compile(r"\x1b(?:\[([?>]?)([\d;]*)([@-~])|\][^\x07]*\x07|[=>78])")
_unfinished = re.compile(r"\x1b(?:\[[?>]?[\d;]*|\][^\x07]*)?\Z")


class Terminal:
    """As wide and as high as needed: nothing scrolls away. Knows what prompt_toolkit uses."""

    def __init__(self, height: int) -> None:
        # What the program believes; the cursor of which it hears is never below.
        self._height = height
        # What the terminal has to say, as if typed.
        self.answers = ""
        self._rows: list[list[str]] = [[]]
        self._row = 0
        self._column = 0
        self._rest = ""

    @property
    def text(self) -> str:
        """All lines, oldest first, without what is blank at their ends."""
        return "\n".join("".join(row).rstrip() for row in self._rows)

    def write(self, text: str) -> None:
        """Show what a program has written."""
        text = self._rest + text
        cut = _unfinished.search(text)
        text, self._rest = (text[: cut.start()], text[cut.start() :]) if cut else (text, "")
        at = 0
        for found in _sequence.finditer(text):
            self._write_plain(text[at : found.start()])
            at = found.end()
            if found[3] and not found[1]:
                numbers = [int(number) for number in found[2].split(";") if number]
                self._obey(found[3], numbers[0] if numbers else None)
        self._write_plain(text[at:])

    def _write_plain(self, text: str) -> None:
        for letter in text:
            if letter == "\r":
                self._column = 0
            elif letter == "\n":
                self._row += 1
                # The driver of a terminal turns it into both.
                self._column = 0
            elif letter == "\b":
                self._column = max(0, self._column - 1)
            elif letter >= " ":
                row = self._here()
                row[self._column : self._column + 1] = [letter]
                self._column += 1

    def _here(self) -> list[str]:
        """The row of the cursor, at least as long as to the cursor."""
        while len(self._rows) <= self._row:
            self._rows.append([])
        row = self._rows[self._row]
        row += [" "] * (self._column - len(row))
        return row

    def _obey(self, order: str, number: int | None) -> None:
        match order:
            case "A":
                self._row = max(0, self._row - (number or 1))
            case "B":
                self._row += number or 1
            case "C":
                self._column += number or 1
            case "D":
                self._column = max(0, self._column - (number or 1))
            case "n" if number == 6:
                self.answers += f"\x1b[{min(self._row + 1, self._height)};{self._column + 1}R"
            case "K":
                del self._here()[self._column :]
            case "J":
                del self._here()[self._column :]
                del self._rows[self._row + 1 :]
