"""What each threshold on a score would bring: alerts, hits, cost; and how much better than chance the highest scores are.

``score`` (float64) rises with the chance that ``truth`` (bool, or 0 and 1) is true; an alert is ``score >= threshold``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.metrics.classification import Steps, as_truth, confusion, steps
from mainspring.spec import Costs

Floats = npt.NDArray[np.float64]
Truth = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """At each threshold, from the highest down: shares of one length; precision is NaN where there is no alert."""

    threshold: Floats
    alert_rate: Floats
    precision: Floats
    recall: Floats
    false_alarm_rate: Floats


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Mean cost of a row at each threshold, from ``inf`` (no alert at all) down; arrays of one length."""

    threshold: Floats
    cost: Floats


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """The cheapest threshold on these rows.

    ``cost`` is that on the same rows, which flatters it; ``expected`` is what thresholds chosen on resamples cost on the rows
    left out of them. Intervals hold for ``threshold`` and for the cost of a row at it.
    """

    threshold: float
    threshold_low: float
    threshold_high: float
    cost: float
    cost_low: float
    cost_high: float
    expected: float


@dataclass(frozen=True, slots=True)
class Gain:
    """One band of the highest scores down: its share of rows, how many of them are true, and all that up to it is gained.

    ``lift`` is the band's share of true rows over that of all rows, ``gained`` the recall of all bands so far; ties are shared.
    """

    band: int
    rows: float
    positives: float
    rate: float
    lift: float
    gained: float


def threshold_curve(score: Floats, truth: Truth, *, points: int = 200) -> ThresholdCurve:
    """The curve at no more than about ``points`` thresholds, evenly spaced in alerts; errors as in `metrics.steps`."""
    cut = steps(score, truth)
    wanted = np.linspace(0, cut.rows, points + 1)[1:]
    taken = np.unique(np.searchsorted(cut.alerts, wanted, side="left"))
    alerts, hits = cut.alerts[taken], cut.hits[taken]
    return ThresholdCurve(
        cut.threshold[taken],
        alerts / cut.rows,
        hits / alerts,
        hits / cut.positives if cut.positives else np.full(len(hits), np.nan),
        (alerts - hits) / (cut.rows - cut.positives) if cut.positives < cut.rows else np.full(len(hits), np.nan),
    )


def cost_curve(score: Floats, truth: Truth, costs: Costs) -> CostCurve:
    """Mean cost at every distinct threshold; errors as in `metrics.steps`."""
    cut = steps(score, truth)
    return CostCurve(np.append(np.inf, cut.threshold), _costs(cut, costs))


def best_threshold(
    score: Floats, truth: Truth, costs: Costs, *, rng: np.random.Generator, blocks: npt.NDArray[Any] | None = None, draws: int = 500,
    level: float = 0.95,
) -> BestThreshold:  # fmt: skip
    """The threshold of least mean cost, with percentile intervals over resamples of rows or of whole ``blocks``.

    Errors as in `metrics.steps`. Fewer than two blocks tell nothing: the intervals are infinite and ``expected`` is NaN.
    """
    curve = cost_curve(score, truth, costs)
    least = int(curve.cost.argmin())
    chosen = float(curve.threshold[least])
    units = np.arange(len(score)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    if units.max() < 1:
        return BestThreshold(chosen, -math.inf, math.inf, float(curve.cost[least]), -math.inf, math.inf, math.nan)
    found = _resampled(score, as_truth(truth), costs, units, chosen, rng, draws)
    thresholds, fixed, outside = found.T
    low, high = np.quantile(thresholds, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    cost_low, cost_high = np.quantile(fixed, [(1 - level) / 2, (1 + level) / 2])
    return BestThreshold(
        chosen, float(low), float(high), float(curve.cost[least]), float(cost_low), float(cost_high), float(np.nanmean(outside))
    )


def gains(score: Floats, truth: Truth, *, bands: int = 10) -> tuple[Gain, ...]:
    """The lift and gain table: ``bands`` of equal size, the highest scores first; errors as in `metrics.steps`."""
    reached = [confusion(score, truth, alert_rate=band / bands).tp for band in range(bands + 1)]
    rows, positives = len(score) / bands, reached[-1]
    table = []
    for band in range(1, bands + 1):
        hits = reached[band] - reached[band - 1]
        lift = hits * bands / positives if positives else math.nan
        table.append(Gain(band, rows, hits, hits / rows, lift, reached[band] / positives if positives else math.nan))
    return tuple(table)


def _costs(cut: Steps, costs: Costs) -> Floats:
    alerts, hits = np.append(0.0, cut.alerts), np.append(0.0, cut.hits)
    total = hits * costs.tp + (alerts - hits) * costs.fp + (cut.positives - hits) * costs.fn
    mean: Floats = (total + (cut.rows - cut.positives - alerts + hits) * costs.tn) / cut.rows
    return mean


def _resampled(
    score: Floats, truth: npt.NDArray[np.bool_], costs: Costs, units: npt.NDArray[np.int64], chosen: float,
    rng: np.random.Generator, draws: int,
) -> Floats:  # fmt: skip
    """For each resample: its best threshold, its mean cost at ``chosen``, and its best threshold's cost on the rows left out."""
    order = np.argsort(-score)
    ranked, units = score[order], units[order]
    with_alert, without = (np.where(truth[order], true, false) for true, false in ((costs.tp, costs.fp), (costs.fn, costs.tn)))
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    thresholds = np.append(np.inf, ranked[last])
    at = int(np.searchsorted(-thresholds, -chosen))
    results = np.empty((draws, 3))
    for draw in range(draws):
        count = int(units.max()) + 1
        weight = np.bincount(rng.integers(count, size=count), minlength=count)[units]
        drawn = _curve(weight, with_alert, without, last)
        best = int(drawn.argmin())
        left = weight == 0
        outside = _curve(left, with_alert, without, last)[best] / left.sum() if left.any() else math.nan
        results[draw] = thresholds[best], drawn[at] / weight.sum(), outside
    return results


def _curve(weight: npt.NDArray[Any], with_alert: Floats, without: Floats, last: npt.NDArray[np.int64]) -> Floats:
    """Total cost of weighted rows, ranked by falling score, at each threshold from no alert down."""
    change = np.cumsum(weight * (with_alert - without))[last]
    return float((weight * without).sum()) + np.append(0.0, change)
