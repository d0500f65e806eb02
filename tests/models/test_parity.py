"""Comparisons find what differs, where it differs, and say how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from mainspring.models.parity import Comparison, Probes, Tolerance, compared


def test_a_comparison_gives_differences_ranks_and_decisions() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.5, 2.25, 4.0])
    found = Comparison.of(first, second, decide_at=[2.4])
    assert (found.rows, found.absolute, found.relative) == (4, 0.75, 0.25)
    assert found.otherwise == 0.5
    assert found.rank == pytest.approx(spearmanr(first, second).statistic)


def test_ties_have_mean_ranks_and_the_worst_output_counts() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (200, 2)).astype(float), rng.integers(0, 5, (200, 2)).astype(float)
    assert Comparison.of(first[:, 0], second[:, 0]).rank == pytest.approx(spearmanr(first[:, 0], second[:, 0]).statistic)
    assert Comparison.of(first, np.column_stack([first[:, 0], -first[:, 1]])).rank == pytest.approx(-1.0)


def test_answers_that_are_not_numbers_differ_from_those_that_are() -> None:
    nothing = np.array([np.nan, 1.0])
    assert Comparison.of(nothing, nothing).absolute == 0.0
    assert Comparison.of(nothing, np.array([0.0, 1.0])).absolute == np.inf
    assert Comparison.of(np.zeros(3), np.zeros(3)).relative == 0.0
    assert Comparison.of(np.zeros(3), np.array([0.0, 0.0, 1e-9])).relative == np.inf


def test_a_copy_that_is_wrong_only_on_a_threshold_is_found_there() -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    probes = Probes([(0, 0.1), (1, 0.5)])
    found = compared(lambda x: (x[:, 0] <= 0.1) * 1.0, lambda x: (x[:, 0] < 0.1) * 1.0, x, probes, [0.5])
    assert found.parts["given"].absolute == 0.0
    assert (found.parts["thresholds"].absolute, found.parts["thresholds"].rows) == (1.0, 6)
    assert found.parts["thresholds"].otherwise == pytest.approx(1 / 6)
    assert not found.within(Tolerance())
    assert not found.within(Tolerance(relative=10.0))
    assert found.within(Tolerance(relative=10.0, otherwise=0.2))


def test_a_threshold_in_float32_is_met_in_float32() -> None:
    edge = float(np.float32(0.1))

    def less(x: Any) -> Any:
        return (x[:, 0].astype(np.float32) < np.float32(0.1)) * 1.0

    x = np.ones((5, 1))
    found = compared(less, lambda x: np.where(x[:, 0] < edge - 1e-12, 1.0, 0.0), x, Probes([(0, edge)], {}, np.float32))
    assert found.within(Tolerance())
    assert not compared(less, lambda x: np.zeros(len(x)), x, Probes([(0, edge)], {}, np.float32)).within(Tolerance())


def test_missing_values_and_unknown_categories_are_asked_for() -> None:
    asked: list[Any] = []

    def remember(x: Any) -> Any:
        asked.append(x)
        return np.zeros(len(x))

    found = compared(remember, lambda x: np.zeros(len(x)), np.ones((4, 3)), Probes(categories={2: 7}))
    assert set(found.parts) == {"given", "missing", "unknown"}
    assert np.isnan(asked[1]).tolist() == [[True, False, False], [False, True, False], [False, False, True], [True, True, True]]
    assert asked[2][:, 2].tolist() == [7.0, 8.0, 1e6, -1.0]
    assert found.lines()[0].startswith("given           4 rows  difference 0 absolute")
