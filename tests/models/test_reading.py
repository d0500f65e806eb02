from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.models.reading import HANDLE, LINK, Reading

READ = Reading()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (None, []),
        ("", []),
        (" \t\n ", []),
        ("Free PRIZE!!", ["free", "prize", "!", "!"]),
        ("see https://a.example/x?y=1 or WWW.b.example", ["see", LINK, "or", LINK]),
        ("@someone and a@b.example", [HANDLE, "and", "a", "@", "b", ".", "example"]),
        ("call 0800 123", ["call", "0800", "123"]),
        ("\u0661\u0662", ["\u0661\u0662"]),
        ("fr\u200bee\ufeff p\u00adrize", ["free", "prize"]),
        ("\uff26\uff32\uff25\uff25 \ufb01ne", ["free", "fine"]),
        ("stra\u00dfe", ["strasse"]),
        ("ok \U0001f44d\U0001f3fd\ufe0f", ["ok", "\U0001f44d", "\U0001f3fd"]),
        ("\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0947\u0935", ["\u0928\u092e\u0938\u094d\u0924\u0947", "\u0926\u0947\u0935"]),
        ("\u4f60\u597d\uff0c\u4e16\u754c", ["\u4f60\u597d", ",", "\u4e16\u754c"]),
        ("\ud800half", ["half"]),
    ],
)  # fmt: skip
def test_a_text_is_its_words(text: str | None, tokens: list[str]) -> None:
    assert READ.tokens(text) == tokens


def test_what_is_not_declared_alike_stays_apart() -> None:
    as_it_is = Reading(case=False, links=False, handles=False, digits=False)
    assert as_it_is.tokens("Call @me 12") == ["Call", "@", "me", "12"]
    assert as_it_is.tokens("\uff11") == ["1"]


def test_a_long_text_is_read_to_its_limit() -> None:
    assert len(Reading(longest=10).tokens("a " * 1_000_000)) == 5
    assert Reading(longest=5).tokens("abcdefgh") == ["abcde"]


def test_terms_are_runs_of_words_and_pieces_within_edges() -> None:
    assert [run for run, _, _ in READ.runs(["a", "b", "c"])] == ["a", "b", "c", "a b", "b c"]
    assert [run for run, _, _ in READ.runs(["call", "08\u0661"])] == ["call", "000", "call 000"]
    assert [run for run, _, _ in Reading(digits=False).runs(["08"])] == ["08"]
    assert list(READ.runs([])) == []
    assert Reading(pieces=(2, 2)).cut("08") == [" 0", "08", "8 "]
    assert Reading(pieces=(2, 3)).cut("ab") == [" a", "ab", "b ", " ab", "ab "]
    assert Reading(pieces=(2, 5)).cut("a") == [" a", "a ", " a "]
    assert Reading(pieces=None).cut("ab") == []
    assert Reading(pieces=(3, 4)).cut("") == ["  "]


@given(st.text(max_size=80))
def test_any_text_is_read_and_alike_ones_alike(text: str) -> None:
    tokens = READ.tokens(text)
    assert all(tokens)
    assert len(READ.words_of(tokens)) == len(tokens)
    assert READ.tokens(unicodedata.normalize("NFKC", text)) == tokens
    assert READ.tokens("\u200b".join(text)) == tokens
    assert READ.tokens("e\u200b\u0301" + text) == READ.tokens("\u00e9" + text)
    assert Reading.from_dict(READ.to_dict()) == READ
