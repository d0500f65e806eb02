"""Found slices: none where there is none, the planted one where there is one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mainspring.evaluation.slices import Between, Equals, FoundSlice, find_slices, rows_of, slice_metrics
from mainspring.metrics import mae

Columns = dict[str, np.ndarray]


def features(rng: np.random.Generator, n: int) -> Columns:
    text = np.array([f"c{k}" for k in rng.integers(0, 8, n)], dtype=object)
    text[rng.random(n) < 0.05] = None
    return {
        "country": text,
        "amount": np.exp(rng.normal(size=n)),
        "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 80, n).astype(float)),
        "weekday": rng.integers(0, 7, n),
        "new": rng.random(n) < 0.3,
    }


LOSSES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "rare error": lambda rng, n: (rng.random(n) < 0.05).astype(float),
    "rare success": lambda rng, n: (rng.random(n) < 0.95).astype(float),
    "normal": lambda rng, n: rng.normal(size=n),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_set_without_a_worse_slice_reports_any_as_rarely_as_promised(kind: str) -> None:
    rng = np.random.default_rng(1)
    reported = sum(bool(find_slices(features(rng, 3000), LOSSES[kind](rng, 3000), rng=rng, alpha=0.1)) for _ in range(60))
    assert reported <= 0.2 * 60


def test_rows_of_one_block_count_together() -> None:
    rng = np.random.default_rng(2)
    with_blocks = without = 0
    for _ in range(40):
        users = rng.integers(0, 200, 3000)
        columns = {name: values[:200][users] for name, values in features(rng, 3000).items()}
        loss = rng.exponential(size=200)[users] + rng.normal(size=3000) * 0.1
        with_blocks += bool(find_slices(columns, loss, rng=rng, blocks=users, alpha=0.1))
        without += bool(find_slices(columns, loss, rng=rng, alpha=0.1))
    assert with_blocks <= 0.25 * 40
    assert without >= 0.8 * 40


Mask = Callable[[Columns], np.ndarray]


def found_with(rng: np.random.Generator, mask: Mask, **options: object) -> tuple[Columns, tuple[FoundSlice, ...]]:
    columns = features(rng, 8000)
    loss = rng.exponential(size=8000) * np.where(mask(columns), 2.0, 1.0)
    return columns, find_slices(columns, loss, rng=rng, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("control", ["holm", "bh"])
def test_a_planted_slice_of_two_features_is_the_first_found(control: str) -> None:
    hits = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)

        def planted(columns: Columns) -> np.ndarray:
            return np.asarray((columns["country"] == "c3") & columns["new"])

        columns, found = found_with(rng, planted, control=control, min_rows=50)
        assert found
        first = found[0]
        hits += {str(one) for one in first.conditions} == {"country = c3", "new = True"}
        mask = rows_of(first.conditions, columns)
        assert 0 < first.rows < mask.sum()
        assert first.low <= first.excess <= first.high
    assert hits >= 9


def test_planted_slices_of_one_feature_are_found_and_named() -> None:
    rng = np.random.default_rng(3)
    _, found = found_with(rng, lambda columns: np.isnan(columns["age"]))
    assert str(found[0]) == "age is missing"
    _, found = found_with(rng, lambda columns: columns["amount"] > np.quantile(columns["amount"], 0.8))
    assert str(found[0]).startswith("amount >= ")
    _, found = found_with(rng, lambda columns: columns["country"] == np.array(None))
    assert str(found[0]) == "country is missing"
    assert found[0].excess == pytest.approx(1.0, abs=0.5)
    assert not found_with(rng, lambda columns: columns["weekday"] == 3, excess=2.0)[1]


def test_the_excess_is_measured_where_it_was_not_searched() -> None:
    rng = np.random.default_rng(4)
    covered = total = 0
    for _ in range(40):
        _, found = found_with(rng, lambda columns: columns["country"] == "c1", alpha=0.05)
        first = [one for one in found if str(one) == "country = c1"]
        total += len(first)
        covered += sum(one.low <= 1.0 <= one.high for one in first)
    assert total >= 36
    assert covered >= 0.85 * total


def test_conditions_select_what_they_say() -> None:
    columns = {"x": np.array([1.0, np.nan, 3.0, 5.0]), "c": np.array(["a", None, "b", "a"], dtype=object)}
    assert rows_of([Between("x", 1.0, 3.0)], columns).tolist() == [True, False, False, False]
    assert rows_of([Between("x", 3.0, np.inf)], columns).tolist() == [False, False, True, True]
    assert rows_of([Equals("x", None)], columns).tolist() == [False, True, False, False]
    assert rows_of([Equals("c", "a"), Between("x", -np.inf, 2.0)], columns).tolist() == [True, False, False, False]
    named = [str(one) for one in (Between("x", 1, 3), Between("x", -np.inf, 3), Equals("c", None))]
    assert named == ["1 <= x < 3", "x < 3", "c is missing"]


def test_little_or_wrong_input() -> None:
    rng = np.random.default_rng(5)
    assert find_slices({"x": np.zeros(0)}, np.zeros(0), rng=rng) == ()
    assert find_slices({"x": np.arange(50)}, np.arange(50.0), rng=rng) == ()
    assert find_slices({"x": np.arange(500)}, np.ones(500), rng=rng) == ()
    assert find_slices({"x": np.full(500, np.nan)}, rng.random(500), rng=rng) == ()
    assert find_slices({"x": np.arange(500)}, rng.random(500), rng=rng, blocks=np.zeros(500)) == ()
    with pytest.raises(ValueError, match="columns"):
        find_slices({"x": np.arange(50)}, np.arange(51.0), rng=rng)


def test_declared_slices_have_intervals_that_cover() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(150):
        truth = rng.normal(size=400)
        night = rng.random(400) < 0.3
        predicted = truth + rng.normal(size=400) * np.where(night, 2, 1)
        day, dark, never = slice_metrics(
            mae, (predicted, truth), {"day": ~night, "night": night, "never": night & ~night}, rng=rng, draws=150
        )
        covered += dark.low <= 2 * np.sqrt(2 / np.pi) <= dark.high
        assert day.rows + dark.rows == 400
        assert np.isnan(never.value)
    assert covered >= 0.89 * 150
    blocked = slice_metrics(mae, (predicted, truth), {"night": night}, rng=rng, blocks=np.zeros(400), draws=20)
    assert (blocked[0].low, blocked[0].high) == (-np.inf, np.inf)
