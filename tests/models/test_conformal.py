from __future__ import annotations

import numpy as np
import pytest

from mainspring.models.conformal import ConformalInterval


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
