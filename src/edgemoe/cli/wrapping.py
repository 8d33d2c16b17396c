"""Text that is shown while it comes, broken between words at the width of the terminal."""

from __future__ import annotations


class WordWrap:
    """Takes pieces of text and gives back what can be shown: whole words, on lines that have room for them.

    The last word is kept back until it ends. Without a width everything passes as it is.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._column = 0
        self._spaces = ""
        self._word = ""

    def push(self, text: str) -> str:
        """What can be shown now."""
        if self._width is None:
            return text
        shown = ""
        for character in text:
            if character == "\n":
                shown += self._take_word() + "\n"
                self._column, self._spaces = 0, ""
            elif character in " \t":
                shown += self._take_word()
                self._spaces += character
            else:
                self._word += character
        return shown

    def flush(self) -> str:
        """What is left at the end."""
        return self._take_word()

    def _take_word(self) -> str:
        from rich.cells import cell_len

        if not self._word:
            return ""
        word, spaces, size = self._word, self._spaces, cell_len(self._word)
        self._word = self._spaces = ""
        assert self._width is not None
        if self._column and self._column + len(spaces) + size > self._width:
            self._column = size
            return "\n" + word
        self._column += len(spaces) + size
        return spaces + word
