"""Against every order of ties written out, scikit-learn, LightGBM's own NDCG, and the clock."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from mainspring.metrics import METRICS, average_precision_at, hit_rate, ndcg, precision_at, recall_at, reciprocal_rank

QUERY = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=6)


def _plain_ndcg(relevance: list[int], k: int) -> float:
    def gain(order: list[int]) -> float:
        return sum((2**r - 1) / math.log2(place + 2) for place, r in enumerate(order[:k]))

    best = gain(sorted(relevance, reverse=True))
    return gain(relevance) / best if best else math.nan


def _plain_average_precision(relevance: list[int], k: int) -> float:
    hits = [place for place, r in enumerate(relevance) if r]
    return sum((n + 1) / (place + 1) for n, place in enumerate(hits) if place < k) / min(k, len(hits)) if hits else math.nan


def _plain_reciprocal(relevance: list[int], k: int) -> float:
    hits = [place for place, r in enumerate(relevance) if r]
    return (1 / (hits[0] + 1) if hits[0] < k else 0.0) if hits else math.nan


def _plain_recall(relevance: list[int], k: int) -> float:
    return sum(map(bool, relevance[:k])) / sum(map(bool, relevance)) if any(relevance) else math.nan


def _plain_precision(relevance: list[int], k: int) -> float:
    return sum(map(bool, relevance[:k])) / k if any(relevance) else math.nan


def _plain_hit(relevance: list[int], k: int) -> float:
    return float(any(relevance[:k])) if any(relevance) else math.nan


PLAIN = [
    (ndcg, _plain_ndcg),
    (average_precision_at, _plain_average_precision),
    (reciprocal_rank, _plain_reciprocal),
    (recall_at, _plain_recall),
    (precision_at, _plain_precision),
    (hit_rate, _plain_hit),
]


@pytest.mark.parametrize(("measure", "plain"), PLAIN, ids=[measure.__name__ for measure, _ in PLAIN])
@given(queries=st.lists(QUERY, min_size=1, max_size=3), k=st.integers(1, 5))
def test_equal_scores_count_as_the_mean_over_every_order(
    measure: Callable[..., np.ndarray], plain: Callable[[list[int], int], float], queries: list[list[tuple[int, int]]], k: int
) -> None:
    expected = []
    for query in queries:
        orders = [
            [relevance for _, relevance in order]
            for order in itertools.permutations(query)
            if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
        ]
        expected.append(np.mean([plain(order, k) for order in orders]))
    score = np.array([s for query in queries for s, _ in query], dtype=float)
    relevance = np.array([r for query in queries for _, r in query], dtype=float)
    groups = np.repeat(np.arange(len(queries)), [len(query) for query in queries])
    assert measure(score, relevance, groups, k=k) == pytest.approx(np.array(expected), nan_ok=True, abs=1e-12)


def test_queries_need_not_be_together_nor_be_numbers() -> None:
    rng = np.random.default_rng(0)
    score, relevance, groups = rng.random(300), rng.integers(0, 3, 300), rng.integers(0, 20, 300)
    together = np.argsort(groups, kind="stable")
    names = np.array([f"q{group:02d}" for group in groups], dtype=object)
    for measure, _ in PLAIN:
        values = measure(score, relevance, groups, k=4)
        assert values == pytest.approx(measure(score[together], relevance[together], groups[together], k=4), nan_ok=True)
        assert values == pytest.approx(measure(score, relevance, names, k=4), nan_ok=True)


def test_linear_gains_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    score, relevance = rng.integers(0, 6, (40, 12)).astype(float), rng.integers(0, 4, (40, 12)).astype(float)
    mine = ndcg(score.ravel(), relevance.ravel(), np.repeat(np.arange(40), 12), k=5, gains="linear")
    assert mine.mean() == pytest.approx(ndcg_score(relevance, score, k=5))


def test_exponential_gains_and_empty_queries_as_one_are_those_of_lightgbm() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(2, 30, 60)
    groups = np.repeat(np.arange(60), sizes)
    features = rng.random((len(groups), 3))
    relevance = np.where(groups % 9 == 0, 0, rng.integers(0, 4, len(groups)))
    data = lightgbm.Dataset(features, relevance, group=sizes)
    record: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        {"objective": "lambdarank", "eval_at": [7], "metric": "ndcg", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5},
        data, num_boost_round=40, valid_sets=[data], callbacks=[lightgbm.record_evaluation(record)],
    )  # fmt: skip
    score = booster.predict(features, num_threads=1)
    assert len(np.unique(score)) > 0.99 * len(score)
    mine = ndcg(score, relevance, groups, k=7, empty=1.0).mean()
    assert mine == pytest.approx(record["training"]["ndcg@7"][-1], abs=1e-9)
    assert np.isnan(ndcg(score, relevance, groups, k=7)).sum() == np.unique(groups[groups % 9 == 0]).size


def test_a_million_rows_take_well_under_a_second() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(10_000), 100)
    score, relevance = rng.random(1_000_000), (rng.random(1_000_000) < 0.05).astype(float)
    for name in ("ndcg", "map", "mrr", "recall_at", "hit_rate"):
        started = time.process_time()
        METRICS[name].function(score, relevance, groups, k=10)
        assert time.process_time() - started < 2, name


def test_what_cannot_be_ranked_is_refused() -> None:
    ones = np.ones(3)
    for arrays, k, words in (
        ((ones, ones, ones[:2]), 1, "shapes"),
        ((ones * np.nan, ones, ones), 1, "NaN"),
        ((ones, -ones, ones), 1, "below 0"),
        ((ones, ones, ones), 0, "places"),
    ):
        with pytest.raises(ValueError, match=words):
            ndcg(*arrays, k=k)
