"""Prediction sets cover as declared: held against the exact distribution of the coverage, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from mainspring.models.sets import PredictionSets, two_columns

CLASSES, CALIBRATED, ASKED, WORLDS = 5, 99, 200, 400


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Probabilities of a model that is overconfident, and classes that come as they really come."""
    odds = rng.normal(0, 1, (n, CLASSES)) + np.array([1.5, 0.5, 0, 0, -1])
    real = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    said = np.exp(2 * odds) / np.exp(2 * odds).sum(axis=1, keepdims=True)
    return said, (rng.random((n, 1)) > np.cumsum(real, axis=1)).sum(axis=1).astype(float)


def covered(sets: PredictionSets, rng: np.random.Generator, n: int, *, drawn: bool = True) -> np.ndarray:  # type: ignore[type-arg]
    said, truth = world(rng, n)
    inside = sets.apply(said, rng if drawn else None)
    return np.asarray(inside[np.arange(n), truth.astype(int)])


@pytest.mark.parametrize("by", ["lac", "aps", "raps"])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_follows_the_beta_binomial_law(by: str, coverage: float) -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(WORLDS):
        sets = PredictionSets.fit(*world(rng, CALIBRATED), coverage, by=by, per_class=False, rng=rng)
        counts.append(covered(sets, rng, ASKED).sum())
    rank = round(coverage * (CALIBRATED + 1))
    law = betabinom(ASKED, rank, CALIBRATED + 1 - rank)
    assert np.mean(counts) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(WORLDS))
    low, high = law.ppf([0.05, 0.95])
    expected = law.cdf(high) - law.cdf(low - 1)
    inside = np.mean((np.array(counts) >= low) & (np.array(counts) <= high))
    assert inside == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / WORLDS))


@pytest.mark.parametrize("by", ["lac", "aps", "raps"])
def test_every_class_is_covered_by_itself_where_that_is_declared(by: str) -> None:
    rng = np.random.default_rng(1)
    calibration = world(rng, 20_000)
    each = PredictionSets.fit(*calibration, 0.9, by=by, per_class=True, rng=rng)
    all_alike = PredictionSets.fit(*calibration, 0.9, by=by, per_class=False, rng=rng)
    said, truth = world(rng, 40_000)
    shares = {}
    for name, sets in (("each", each), ("alike", all_alike)):
        inside = sets.apply(said, rng)[np.arange(len(truth)), truth.astype(int)]
        shares[name] = [inside[truth == one].mean() for one in range(CLASSES)]
        assert inside.mean() == pytest.approx(0.9, abs=0.01)
    assert shares["each"] == pytest.approx([0.9] * CLASSES, abs=0.03)
    assert min(shares["alike"]) < 0.85


@pytest.mark.parametrize("by", ["lac", "aps", "raps"])
def test_without_chance_sets_are_larger_and_never_empty(by: str) -> None:
    rng = np.random.default_rng(2)
    sets = PredictionSets.fit(*world(rng, 2_000), 0.6, by=by, per_class=False, rng=rng)
    said, _ = world(rng, 5_000)
    certain, drawn = sets.apply(said), sets.apply(said, rng)
    assert (certain | ~drawn).all()
    assert certain.any(axis=1).all()
    assert certain[np.arange(len(said)), said.argmax(axis=1)].all()
    assert covered(sets, rng, 20_000, drawn=False).mean() > 0.57


def test_lac_makes_the_smallest_sets_and_aps_spares_the_hard_rows() -> None:
    rng = np.random.default_rng(3)
    calibration, (said, truth) = world(rng, 20_000), world(rng, 40_000)
    made = {by: PredictionSets.fit(*calibration, 0.9, by=by, per_class=False, rng=rng).apply(said, rng) for by in ("lac", "aps")}
    assert made["lac"].sum() < made["aps"].sum()
    hard = said.max(axis=1) < np.quantile(said.max(axis=1), 0.1)
    share = {by: inside[np.arange(len(truth)), truth.astype(int)][hard].mean() for by, inside in made.items()}
    assert abs(share["aps"] - 0.9) < abs(share["lac"] - 0.9)


def test_a_class_of_too_few_rows_is_in_every_set_also_after_storing() -> None:
    rng = np.random.default_rng(4)
    said = np.tile([0.8, 0.2], (50, 1))
    sets = PredictionSets.fit(said, np.array([0.0] * 45 + [1.0] * 5), 0.9, by="lac", per_class=True, rng=rng)
    again = PredictionSets.from_dict(sets.to_dict())
    assert again == sets
    assert again.apply(np.array([[1.0, 0.0]])).tolist() == [[True, True]]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["lac", "aps", "raps"]), st.floats(0.05, 0.9))
def test_more_coverage_never_makes_a_set_smaller(seed: int, by: str, coverage: float) -> None:
    rng = np.random.default_rng(seed)
    calibration, (said, _) = world(rng, 60), world(rng, 20)
    less, more = (
        PredictionSets.fit(*calibration, share, by=by, per_class=False, rng=np.random.default_rng(seed))
        for share in (coverage, coverage + 0.1)
    )
    assert (more.apply(said) | ~less.apply(said)).all()


def test_one_probability_is_that_of_the_second_class() -> None:
    assert two_columns(np.array([0.25])).tolist() == [[0.75, 0.25]]
