"""What free text is worth: scores that are sums over its terms, learned once and kept without code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.errors import RegistryError
from mainspring.models.protocol import Floats
from mainspring.models.reading import Reading

TEXTS = "texts.msgpack"
FORMAT = 2
LEAST_TEXTS = 2
REMEMBERED_WORDS, LONGEST_REMEMBERED = 20_000, 32
"""How many words' pieces are kept at hand, and of how many characters at most, so that nobody can fill the memory."""
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The terms that count: runs of ``words`` and ``pieces`` of words by number, and ``rarity`` of shape ``(terms,)``, float32.

    Rarity is the inverse document frequency ``ln((1 + texts) / (1 + texts with the term)) + 1`` (Sparck Jones, "A statistical
    interpretation of term specificity", 1972).
    """

    reading: Reading
    words: Mapping[str, int]
    pieces: Mapping[str, int]
    rarity: npt.NDArray[np.float32]
    _remembered: Callable[[str], list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remembered", lru_cache(REMEMBERED_WORDS)(self._cut))

    @classmethod
    def fit(cls, reading: Reading, texts: Iterable[str | None], most: int) -> Vocabulary:
        """The terms of at least two texts; of words and of pieces at most the ``most`` most frequent each."""
        words: Counter[str] = Counter()
        pieces: Counter[str] = Counter()
        number = 0
        for text in texts:
            number += 1
            tokens = reading.tokens(text)
            words.update({run for run, _, _ in reading.runs(tokens)})
            pieces.update({piece for token in set(tokens) for piece in reading.cut(token)})
        kept = [_frequent(counted, most) for counted in (words, pieces)]
        counts = np.array([count for one in kept for _, count in one], dtype=np.float64)
        rarity = (np.log((1 + number) / (1 + counts)) + 1).astype(np.float32)
        return cls(reading, *_numbered([[term for term, _ in one] for one in kept]), rarity)

    def __len__(self) -> int:
        return len(self.rarity)

    def row(self, tokens: Sequence[str]) -> tuple[Longs, Longs, Floats]:
        """The terms in a text: their numbers, how often they come, and their values, each of shape ``(m,)``.

        A value is ``(1 + ln(count)) * rarity``; those of words have length 1 together, and those of pieces too.
        """
        runs = Counter([self.words.get(run, -1) for run, _, _ in self.reading.runs(tokens)])
        cut = [self._remembered(token) if len(token) <= LONGEST_REMEMBERED else self._cut(token) for token in tokens]
        pieces = Counter(chain.from_iterable(cut))
        blocks = [self._valued(block) for block in (runs, pieces)]
        numbers, counts, values = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return numbers, counts, values

    def _cut(self, token: str) -> list[int]:
        return [self.pieces.get(piece, -1) for piece in self.reading.cut(token)]

    def _valued(self, block: Counter[int]) -> tuple[Longs, Longs, Floats]:
        block.pop(-1, None)
        numbers, counts = (np.fromiter(one, dtype=np.int64, count=len(block)) for one in (block.keys(), block.values()))
        values: Floats = (1 + np.log(counts)) * self.rarity[numbers].astype(np.float64)
        return numbers, counts, values / np.sqrt((values * values).sum()) if len(values) else values


@dataclass(frozen=True, slots=True)
class TextScores:
    """A vocabulary with what its terms are worth: ``weights`` of shape ``(terms, outputs)``, float32.

    A text's score is the sum over its terms of value times weight, so that an empty text, null or one without a known
    term scores 0. One output is the label's unit or log-odds, several are the classes' scores.
    """

    vocabulary: Vocabulary
    weights: npt.NDArray[np.float32]

    @property
    def outputs(self) -> int:
        """How many scores a text has."""
        return int(self.weights.shape[1])

    def score(self, text: str | None) -> Floats:
        """The scores of one text, shape ``(outputs,)``."""
        numbers, _, values = self.vocabulary.row(self.vocabulary.reading.tokens(text))
        return np.asarray((values[:, None] * self.weights[numbers]).sum(axis=0), dtype=np.float64)

    def scores(self, texts: npt.NDArray[Any]) -> Floats:
        """The scores of texts of shape ``(n,)``, None for null: shape ``(n, outputs)``, to the bit those of each alone."""
        return np.array([self.score(text) for text in texts.tolist()]).reshape(len(texts), self.outputs)

    def effects(self, text: str | None) -> dict[str, Floats]:
        """What each word of a text adds to its scores, shape ``(outputs,)`` each; together they are the scores.

        A run's part is shared among its words; a piece's part is the word's in which it stands.
        """
        reading, vocabulary = self.vocabulary.reading, self.vocabulary
        tokens = reading.tokens(text)
        numbers, counts, values = vocabulary.row(tokens)
        once = dict(zip(numbers.tolist(), (values / counts)[:, None] * self.weights[numbers], strict=True))
        nothing = np.zeros(self.outputs)
        found = {token: np.zeros(self.outputs) for token in tokens}
        for run, place, length in reading.runs(tokens):
            for token in tokens[place : place + length]:
                found[token] += once.get(vocabulary.words.get(run, -1), nothing) / length
        for token, times in Counter(tokens).items():
            for piece in reading.cut(token):
                found[token] += times * once.get(vocabulary.pieces.get(piece, -1), nothing)
        return found


class _Stored(msgspec.Struct, frozen=True):
    reading: dict[str, Any]
    words: list[str]
    pieces: list[str]
    rarity: bytes
    weights: bytes
    outputs: int


class _File(msgspec.Struct, frozen=True):
    format: int
    texts: dict[str, _Stored]


def to_bytes(texts: Mapping[str, TextScores]) -> bytes:
    """Scores by column as MessagePack: terms as text, numbers as little-endian float32."""
    stored = {}
    for column, scores in texts.items():
        words, pieces = scores.vocabulary.words, scores.vocabulary.pieces
        rarity, weights = (array.astype("<f4").tobytes() for array in (scores.vocabulary.rarity, scores.weights))
        stored[column] = _Stored(scores.vocabulary.reading.to_dict(), list(words), list(pieces), rarity, weights, scores.outputs)
    return msgspec.msgpack.encode(_File(FORMAT, stored))


def from_bytes(body: bytes) -> dict[str, TextScores]:
    """The scores that `to_bytes` wrote.

    Raises:
        RegistryError: these are no such scores, or they are damaged or of another format.
    """
    try:
        file = msgspec.msgpack.decode(body, type=_File)
        if file.format != FORMAT:
            raise RegistryError(f"{TEXTS}: format {file.format} is not {FORMAT}. It was made by another version of mainspring.")
        return {column: _restored(one) for column, one in file.texts.items()}
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
        raise RegistryError(f"{TEXTS}: this is not a whole vocabulary ({error}). Register the version again.") from error


def _restored(stored: _Stored) -> TextScores:
    words, pieces = _numbered([stored.words, stored.pieces])
    rarity = np.frombuffer(stored.rarity, dtype="<f4").astype(np.float32)
    weights = np.frombuffer(stored.weights, dtype="<f4").astype(np.float32).reshape(len(rarity), stored.outputs)
    if len(words) + len(pieces) != len(rarity):
        raise ValueError(f"{len(words) + len(pieces)} terms and {len(rarity)} numbers")
    return TextScores(Vocabulary(Reading.from_dict(stored.reading), words, pieces, rarity), weights)


def _frequent(counted: Counter[str], most: int) -> list[tuple[str, int]]:
    return sorted(((term, count) for term, count in counted.items() if count >= LEAST_TEXTS), key=lambda item: (-item[1], item[0]))[:most]


def _numbered(blocks: Sequence[Sequence[str]]) -> tuple[dict[str, int], dict[str, int]]:
    words, pieces = blocks
    return {term: number for number, term in enumerate(words)}, {term: len(words) + number for number, term in enumerate(pieces)}
