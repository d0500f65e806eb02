import inspect
import math

import numpy as np
import pytest

from mainspring.metrics import METRICS, Metric

RNG = np.random.default_rng(0)
ARRAYS = {
    "predicted": RNG.random(60),
    "low": RNG.random(60) - 1,
    "high": RNG.random(60),
    "score": RNG.random(60),
    "probability": RNG.dirichlet(np.ones(2), 60),
    "truth": RNG.integers(0, 2, 60),
    "relevance": RNG.integers(0, 2, 60),
    "groups": np.repeat(np.arange(6), 10),
}
OPTIONS = {"pinball": {"quantile": 0.9}, **{name: {"alert_rate": 0.2} for name in ("precision", "recall", "f1", "mcc")}}


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_every_measure_takes_what_it_says(metric: Metric) -> None:
    value = metric.function(*(ARRAYS[name] for name in metric.needs), **OPTIONS.get(metric.name, {}))
    assert type(value) is float
    assert math.isfinite(value)
    taken = inspect.signature(metric.by_query or metric.function).parameters
    assert list(taken)[len(metric.needs) :] == list(metric.options)


@pytest.mark.parametrize("metric", [one for one in METRICS.values() if one.kind in ("binary", "regression")], ids=lambda one: one.name)
def test_directions_are_right(metric: Metric) -> None:
    truth = ARRAYS["truth"].astype(float)
    good, bad = 0.98 * truth + 0.01, 0.5 + 0.4 * (0.5 - truth)
    options = {"threshold": 0.5} if "threshold" in metric.options else {}
    values = [metric.function(scores, truth, **options) for scores in (good, bad + 0.2 * (metric.name == "bias"))]
    assert metric.improves(*values)
    assert not metric.improves(*values[::-1])
    assert not metric.improves(math.nan, values[1])


def test_a_level_is_aimed_at_from_both_sides() -> None:
    assert METRICS["coverage"].improves(0.91, 0.97, level=0.9)
    assert METRICS["coverage"].improves(0.91, 0.83, level=0.9)


def test_rankings_without_a_relevant_row_are_not_measured() -> None:
    assert math.isnan(METRICS["ndcg"].function(ARRAYS["score"], 0 * ARRAYS["truth"], ARRAYS["groups"]))
