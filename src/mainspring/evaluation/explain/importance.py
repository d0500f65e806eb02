"""How much the answers hang on each feature: mean size of its contributions, and what is lost when its values are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.metrics import METRICS
from mainspring.metrics.catalog import Metric
from mainspring.metrics.resampling import bootstrap_interval, resamples
from mainspring.models.tabular import TabularModel

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Array]
Predict = Callable[[Columns], Floats]
"""Answers of shape ``(n,)``, or ``(n, outputs)``, for columns of shape ``(n,)`` each, such as `TabularModel.predict`."""
MEASURED = ("regression", "quantile", "binary", "multiclass")


@dataclass(frozen=True, slots=True)
class Importance:
    """How much hangs on ``name``, one feature or a group of them, with an interval for other rows of the kind."""

    name: str
    features: tuple[str, ...]
    value: float
    low: float
    high: float


def mean_contributions(
    model: TabularModel, columns: Columns, *, rng: np.random.Generator, blocks: Array | None = None, draws: int = 500, level: float = 0.95
) -> tuple[Importance, ...]:
    """The mean absolute contribution of each feature to the score before the link, largest first, with bootstrap intervals.

    Of several outputs the contributions' sizes are added up. ``blocks`` as in `mainspring.metrics.bootstrap`. Source: Lundberg et al.,
    "From local explanations to global understanding with explainable AI for trees", 2020.
    """
    effects = np.abs(model.contributions(columns))
    sizes = effects if effects.ndim == 2 else effects.sum(axis=1)
    low, high = mean_intervals(sizes, rng=rng, blocks=blocks, draws=draws, level=level)
    triples = zip(sizes.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return _largest_first([Importance(name, (name,), *one) for name, one in zip(model.encoder.names, triples, strict=True)])


def permutation_importance(
    predict: Predict, columns: Columns, truth: Floats, names: Sequence[str] | Mapping[str, Sequence[str]], *, metric: str,
    options: Mapping[str, Any] | None = None, rng: np.random.Generator, repeats: int = 5, blocks: Array | None = None, draws: int = 200,
    level: float = 0.95,
) -> tuple[Importance, ...]:  # fmt: skip
    """How much worse ``metric`` becomes when the values of a feature are shuffled among the rows, largest first.

    ``names`` are the columns to shuffle, each by itself, or groups of columns by a name, each shuffled as one: of features that say the
    same, shuffling one shows little. The interval is that of the mean over ``repeats`` shuffles for other rows; one around 0 means that the
    feature adds nothing that was seen. A shuffled feature makes rows that cannot be: read it beside `accumulated_local_effects`.
    Sources: Breiman, "Random forests", 2001; Fisher, Rudin, Dominici, "All models are wrong, but many are useful", 2019.

    Raises:
        DeclarationError: the metric or a column is not known, or the metric is none of predictions and truths alone.
    """
    measure = _measure(metric)
    groups = {name: tuple(parts) for name, parts in names.items()} if isinstance(names, Mapping) else {name: (name,) for name in names}
    check_columns(columns, [one for parts in groups.values() for one in parts])
    given, base = dict(options or {}), predict(columns)
    found = []
    for name, parts in groups.items():
        orders = [rng.permutation(len(truth)) for _ in range(repeats)]
        shuffled = [predict({**columns, **{one: columns[one][order] for one in parts}}) for order in orders]

        def worse(truth: Floats, base: Floats, *shuffled: Floats) -> float:
            kept = measure.function(base, truth, **given)
            return float(np.mean([_loss(measure, measure.function(one, truth, **given), kept) for one in shuffled]))

        arrays = [truth, base, *shuffled]
        low, high = bootstrap_interval(worse, arrays, rng=rng, blocks=blocks, draws=draws, level=level)
        found.append(Importance(name, parts, worse(*arrays), low, high))
    return _largest_first(found)


def correlated(columns: Columns, names: Sequence[str], at_least: float = 0.8) -> dict[str, tuple[str, ...]]:
    """Groups of number columns that are linked by rank correlations of ``at_least`` or ``-at_least``; all others by themselves.

    A group has the names of its columns joined by ``+``. Nulls count as the median.
    """
    numbers = [name for name in names if columns[name].dtype != object and len(np.unique(columns[name])) > 1]
    ranks = np.array([_ranks(columns[name].astype(np.float64)) for name in numbers]).reshape(len(numbers), -1)
    near = np.abs(np.atleast_2d(np.corrcoef(ranks))) >= at_least if len(numbers) > 1 else np.eye(len(numbers), dtype=np.bool_)
    group = {name: name for name in names}
    for i, j in np.argwhere(np.triu(near, 1)).tolist():
        kept, gone = group[numbers[i]], group[numbers[j]]
        group = {name: kept if one == gone else one for name, one in group.items()}
    members: dict[str, list[str]] = {}
    for name, one in group.items():
        members.setdefault(one, []).append(name)
    return {" + ".join(parts): tuple(parts) for parts in members.values()}


def mean_intervals(
    values: Floats, *, rng: np.random.Generator, blocks: Array | None = None, draws: int = 500, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile bootstrap intervals of the mean of each column of ``values`` of shape ``(n, k)``: lower and upper ends, ``(k,)`` each.

    Infinite where there are fewer than two rows or blocks: they tell nothing.
    """
    if len(values if blocks is None else np.unique(blocks)) < 2:
        return np.full(values.shape[1], -np.inf), np.full(values.shape[1], np.inf)
    means = np.array([values[taken].mean(axis=0) for taken in resamples(blocks, len(values), rng=rng, draws=draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def check_columns(columns: Columns, names: Sequence[str]) -> None:
    """Refuse names that are no columns.

    Raises:
        DeclarationError: a name is not there; the message says what is.
    """
    for name in names:
        if name not in columns:
            raise DeclarationError(f"Explanation: there is no feature '{name}'.{did_you_mean(name, columns)}")


def _measure(metric: str) -> Metric:
    if metric not in METRICS:
        raise DeclarationError(f"Permutation importance: metric '{metric}' is not known.{did_you_mean(metric, METRICS)}")
    measure = METRICS[metric]
    if measure.kind not in MEASURED or measure.better == "level":
        raise DeclarationError(
            f"Permutation importance: metric '{metric}' needs {', '.join(measure.needs)}. Use one of predictions and truths."
        )
    return measure


def _loss(measure: Metric, now: float, kept: float) -> float:
    if measure.better == "zero":
        return abs(now) - abs(kept)
    return kept - now if measure.better == "higher" else now - kept


def _ranks(values: Floats) -> Floats:
    """Ranks with ties shared, nulls at the median."""
    whole = np.where(np.isnan(values), np.nanmedian(values), values)
    _, place, counts = np.unique(whole, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _largest_first(found: Sequence[Importance]) -> tuple[Importance, ...]:
    return tuple(sorted(found, key=lambda one: (-one.value, one.name)))
