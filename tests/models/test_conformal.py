from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom

from mainspring.models.conformal import ConformalInterval, QuantileInterval, weighted_thresholds


def sample(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(10, 200, n)
    return predicted, predicted + rng.normal(0, 1, n) * (1 + predicted / 20)


def test_it_covers_overall_and_in_every_bin_though_the_noise_grows() -> None:
    interval = ConformalInterval.fit(*sample(20_000, 0), (0.1, 0.9))
    predicted, truth = sample(40_000, 1)
    low, high = interval.apply(predicted)
    inside = (low <= truth) & (truth <= high)
    assert inside.mean() == pytest.approx(0.8, abs=0.01)
    assert (truth < low).mean() == pytest.approx(0.1, abs=0.01)
    place = np.searchsorted(interval.edges, predicted, "right")
    for i in range(len(interval.edges) + 1):
        assert inside[place == i].mean() == pytest.approx(0.8, abs=0.04)


def test_one_value_gets_what_many_get_also_after_storing() -> None:
    interval = ConformalInterval.from_dict(ConformalInterval.fit(*sample(3_000, 2), (0.1, 0.9)).to_dict())
    predicted = np.array([0.0, 10.0, *interval.edges, 200.0, 1e9])
    low, high = interval.apply(predicted)
    assert [interval.apply_one(float(value)) for value in predicted] == list(zip(low.tolist(), high.tolist(), strict=True))


def test_few_rows_make_one_bin_and_the_prediction_is_never_left_out() -> None:
    predicted = np.arange(20.0)
    interval = ConformalInterval.fit(predicted, predicted + 5.0, (0.1, 0.9))
    assert interval.edges == ()
    assert interval.apply_one(3.0) == (3.0, 8.0)


class Straight:
    """A predictor of a quantile that is wrong by a constant."""

    names, outputs = ("x",), 1

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def predict(self, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return self.slope * x[:, 0]


def test_each_bound_of_conformalised_quantiles_follows_the_beta_binomial_law() -> None:
    rng, n, asked, worlds = np.random.default_rng(3), 99, 200, 400
    below, above = [], []
    for _ in range(worlds):
        x = rng.uniform(0, 10, (n + asked, 1))
        y = x[:, 0] * rng.normal(0, 1, n + asked)
        interval = QuantileInterval.fit(Straight(-0.5), Straight(2.0), x[:n], y[:n], (0.1, 0.8))  # type: ignore[arg-type]
        low, high = interval.apply(x[n:])
        below.append((y[n:] >= low).sum())
        above.append((y[n:] <= high).sum())
    for counts, rank in ((below, 90), (above, 80)):
        law = betabinom(asked, rank, n + 1 - rank)
        assert np.mean(counts) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(worlds))
        assert np.std(counts) == pytest.approx(law.std(), rel=0.2)


def test_weights_mend_the_coverage_where_the_features_are_distributed_otherwise() -> None:
    rng, n = np.random.default_rng(4), 40_000
    x, new = rng.uniform(0, 1, n), rng.beta(3, 1, n)
    scores, theirs = x * np.abs(rng.normal(size=n)), new * np.abs(rng.normal(size=n))
    plain = weighted_thresholds(scores, np.ones(n), np.ones(n), 0.9)
    weighted = weighted_thresholds(scores, 3 * x**2, 3 * new**2, 0.9)
    assert plain == pytest.approx(np.sort(scores)[int(np.ceil(0.9 * (n + 1))) - 1])
    assert (theirs <= plain).mean() < 0.85
    assert (theirs <= weighted).mean() == pytest.approx(0.9, abs=0.01)


def test_new_rows_unlike_all_that_were_held_out_have_no_bound() -> None:
    assert weighted_thresholds(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([0.0, 100.0]), 0.9).tolist() == [2.0, np.inf]
