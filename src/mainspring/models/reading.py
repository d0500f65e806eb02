"""How a text is read: what is made alike, and the words and pieces of words that count as its terms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LINK, HANDLE = "<link>", "<handle>"
_LINKS = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_HANDLES = re.compile(r"(?<!\w)@\w+")
_DIGITS = re.compile(r"\d")
_SIGNS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0fff\u1000-\u109f\u1780-\u17d3"
"""Marks that are parts of words in scripts that write vowels so, of which Python's ``\\w`` knows nothing."""
_TOKENS = re.compile(rf"{LINK}|{HANDLE}|[\w{_SIGNS}]+|[^\w\s]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef\ud800-\udfff]"
)
"""Characters that nobody sees, such as zero-width spaces and variation selectors, and halves of characters."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What `mainspring.spec.Text` declares of reading, stored beside what was learned under it.

    Characters that nobody sees are dropped, and those that Unicode calls the same are one (NFKC). ``case`` makes letters
    small, ``links`` and ``handles`` make each a token. Characters after ``longest`` are not read.
    Terms are runs of up to ``words`` words, in which ``digits`` makes every digit a 0, and of ``pieces`` (shortest, longest) characters
    within a word and its edges, which keep their digits.
    """

    case: bool = True
    links: bool = True
    handles: bool = True
    digits: bool = True
    words: int = 2
    pieces: tuple[int, int] | None = (2, 5)
    longest: int = 4_000

    def normal(self, text: str) -> str:
        """The text with all alike that shall be."""
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text[: self.longest]))
        if self.case:
            text = text.casefold()
        if self.links:
            text = _LINKS.sub(f" {LINK} ", text)
        if self.handles:
            text = _HANDLES.sub(f" {HANDLE} ", text)
        return text

    def tokens(self, text: str | None) -> list[str]:
        """The words of a text in order; a mark or a picture is a word of its own, null is the empty text."""
        return [] if text is None else _TOKENS.findall(self.normal(text))

    def words_of(self, tokens: Sequence[str]) -> Sequence[str]:
        """The words as they stand in runs."""
        return _DIGITS.sub("0", " ".join(tokens)).split(" ") if self.digits and tokens else tokens

    def runs(self, tokens: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Runs of words, a space between them: the term, the place of its first word, and how many they are."""
        words = self.words_of(tokens)
        for length in range(1, self.words + 1):
            for place in range(len(words) - length + 1):
                yield " ".join(words[place : place + length]), place, length

    def cut(self, token: str) -> list[str]:
        """The pieces of one word, its edges being spaces; a word shorter than a piece is one itself."""
        if self.pieces is None:
            return []
        whole = f" {token} "
        found = []
        for length in range(self.pieces[0], self.pieces[1] + 1):
            if length >= len(whole):
                found.append(whole)
                break
            found += [whole[place : place + length] for place in range(len(whole) - length + 1)]
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Reading:
        """The reading that `to_dict` wrote."""
        return cls(**{**body, "pieces": None if body["pieces"] is None else tuple(body["pieces"])})
