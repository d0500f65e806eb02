"""Columns of free text, and how a model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mainspring.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Text:
    """A feature of free text, which a model reads as words and pieces of words instead of as a category.

    ``column`` is the feature's name. Characters that nobody sees are dropped, and those that Unicode calls the same are one (NFKC);
    ``case`` makes letters small, ``links`` and ``handles`` (``@name``) make each of them one token; characters after ``longest`` are
    not read. Terms are runs of up to ``words`` words, in which ``digits`` makes every digit a 0, and of ``pieces`` (shortest, longest)
    characters within a word, which keep their digits; of each kind at most ``terms`` are kept, the most frequent. ``l2`` is the penalty
    on a term's weight against the summed loss. Of classes, ``ratio`` is how far, from 0 to 1, it follows what the term tells: it is less
    for terms of one class, and more for those that all classes use alike.
    """

    column: str
    case: bool = True
    links: bool = True
    handles: bool = True
    digits: bool = True
    words: int = 2
    pieces: tuple[int, int] | None = (2, 5)
    longest: int = 4_000
    terms: int = 200_000
    l2: float = 0.4
    ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.pieces is not None:
            object.__setattr__(self, "pieces", tuple(self.pieces))
            if len(self.pieces) != 2 or not 1 <= self.pieces[0] <= self.pieces[1]:
                raise self._error(f"pieces={self.pieces} must be the shortest and the longest run of characters, or None.")
        if self.words < 0 or (self.words == 0 and self.pieces is None):
            raise self._error("there is nothing to read: words must be at least 1, or pieces given.")
        if self.longest < 1 or self.terms < 1 or not self.l2 > 0:
            raise self._error("needs longest >= 1, terms >= 1 and l2 > 0.")
        if not 0 <= self.ratio <= 1:
            raise self._error(f"ratio={self.ratio} must be from 0, the same penalty for all terms, to 1.")

    @property
    def reading(self) -> dict[str, Any]:
        """The settings of `mainspring.models.reading.Reading`."""
        return {name: getattr(self, name) for name in ("case", "links", "handles", "digits", "words", "pieces", "longest")}

    def _error(self, problem: str) -> DeclarationError:
        return DeclarationError(f"Text('{self.column}'): {problem}")
