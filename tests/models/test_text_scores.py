from __future__ import annotations

import random
from time import thread_time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.columns import to_array
from mainspring.errors import RegistryError
from mainspring.models.reading import Reading
from mainspring.models.text_scores import TextScores, Vocabulary, from_bytes, to_bytes
from mainspring.schema import Type

TEXTS = ["win a prize now", "a prize is yours", "see you now", "see you at home", None, ""]


def scores(outputs: int = 2) -> TextScores:
    vocabulary = Vocabulary.fit(Reading(), TEXTS, 1_000)
    return TextScores(vocabulary, np.random.default_rng(0).normal(size=(len(vocabulary), outputs)).astype(np.float32))


def test_terms_of_two_texts_count_and_the_most_frequent_come_first() -> None:
    words = Vocabulary.fit(Reading(pieces=None), TEXTS, 1_000).words
    assert sorted(words) == ["a", "a prize", "now", "prize", "see", "see you", "you"]
    assert len(Vocabulary.fit(Reading(), TEXTS, 3)) == 6
    assert len(Vocabulary.fit(Reading(), [], 3)) == 0


def test_values_are_by_rarity_and_of_length_one() -> None:
    vocabulary = Vocabulary.fit(Reading(words=1, pieces=None), ["a b", "a b", "a c"], 10)
    numbers, counts, values = vocabulary.row(["a", "b", "b", "unknown"])
    by_word = {
        word: (int(counts[place]), float(values[place]))
        for word, number in vocabulary.words.items()
        for place in np.flatnonzero(numbers == number)
    }
    rarity = {"a": np.log(4 / 4) + 1, "b": np.log(4 / 3) + 1}
    raw = np.array([rarity["a"], (1 + np.log(2)) * rarity["b"]])
    assert by_word["b"] == (2, pytest.approx(raw[1] / np.linalg.norm(raw), rel=1e-6))
    assert by_word["a"] == (1, pytest.approx(raw[0] / np.linalg.norm(raw), rel=1e-6))


@given(st.lists(st.none() | st.text(alphabet="abeinoprsuwyz !@1\u200b\U0001f600", max_size=60), max_size=6))
def test_a_text_alone_scores_as_among_others_and_its_words_add_up(texts: list[str | None]) -> None:
    model = scores()
    many = model.scores(to_array(texts, Type.STR))
    assert many.shape == (len(texts), 2)
    for text, score in zip(texts, many.tolist(), strict=True):
        assert model.score(text).tolist() == score
        assert sum(model.effects(text).values(), np.zeros(2)) == pytest.approx(np.array(score), abs=1e-9)


def test_nothing_known_scores_nothing() -> None:
    assert all(scores().score(text).tolist() == [0.0, 0.0] for text in (None, "", "\u200b", "\u4f60\u597d"))


def test_what_is_stored_is_what_was_learned() -> None:
    model = scores()
    again = from_bytes(to_bytes({"body": model}))["body"]
    assert again.vocabulary.words == model.vocabulary.words
    assert again.score("a prize now").tolist() == model.score("a prize now").tolist()
    assert to_bytes({"body": again}) == to_bytes({"body": model})


def test_damaged_and_foreign_files_are_refused() -> None:
    body = to_bytes({"body": scores()})
    plain = msgspec.msgpack.decode(body)
    short = {**plain, "texts": {"body": {**plain["texts"]["body"], "words": []}}}
    for wrong in (b"", b"hello", body[: len(body) // 2], msgspec.msgpack.encode(short)):
        with pytest.raises(RegistryError, match="not a whole vocabulary"):
            from_bytes(wrong)
    with pytest.raises(RegistryError, match="format 3 is not 2"):
        from_bytes(msgspec.msgpack.encode({**plain, "format": 3}))


def test_long_words_are_not_remembered() -> None:
    model, letters = scores(), random.Random(0)
    for _ in range(20):
        model.score("".join(letters.choices("abcdefgh", k=4_000)))
    assert model.vocabulary._remembered.cache_info().currsize == 0  # type: ignore[attr-defined]


def test_the_longest_text_costs_at_most_some_milliseconds() -> None:
    model, times = scores(), []
    for _ in range(5):
        started = thread_time()
        model.score("win a prize and see you at home now " * 100_000)
        times.append(thread_time() - started)
    assert min(times) < 0.05
