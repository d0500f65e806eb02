"""How far two samples of one feature are apart: bins, histograms, the Jensen-Shannon distance and its noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

EDGES = 20
CATEGORIES = 30
SMOOTHING = 0.5


@dataclass(frozen=True, slots=True)
class Reference:
    """Bins of one feature and the counts of the values they were made from.

    Numeric (``categories`` is None): bin ``i`` is ``[edges[i], edges[i + 1])``, the last one the greatest value itself; then
    ``below``, ``above`` and ``missing``. Categorical: a bin for each of ``categories``, then ``other`` and ``missing``.
    """

    edges: tuple[float, ...]
    categories: tuple[str, ...] | None
    counts: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each bin."""
        if self.categories is not None:
            return (*self.categories, "other", "missing")
        return (*(f"from {edge:g}" for edge in self.edges), "below", "above", "missing")

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        categories = None if self.categories is None else list(self.categories)
        return {"edges": list(self.edges), "categories": categories, "counts": list(self.counts)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Reference:
        """The reference that `to_dict` wrote."""
        categories = None if body["categories"] is None else tuple(body["categories"])
        return cls(tuple(body["edges"]), categories, tuple(body["counts"]))


def fit_reference(values: NDArray[Any]) -> Reference:
    """Bins from one-dimensional ``values``: object arrays are categories (None and NaN missing), all others numbers (NaN missing).

    At most `EDGES` edges at quantiles (or at each value, where there are no more than that), at most `CATEGORIES`
    categories, the most frequent first.
    """
    if values.dtype == object:
        frequent = Counter(_texts(values)).most_common()
        categories = tuple(sorted(frequent, key=lambda item: (-item[1], item[0]))[:CATEGORIES])
        empty = Reference((), tuple(category for category, _ in categories), ())
    else:
        numbers = values.astype(np.float64)
        distinct = np.unique(numbers[np.isfinite(numbers)])
        if distinct.size > EDGES:
            finite = numbers[np.isfinite(numbers)]
            distinct = np.unique(np.quantile(finite, np.linspace(0, 1, EDGES), method="inverted_cdf"))
        empty = Reference(tuple(distinct.tolist()), None, ())
    return Reference(empty.edges, empty.categories, tuple(histogram(empty, values).tolist()))


def histogram(reference: Reference, values: NDArray[Any]) -> Counts:
    """How many of ``values`` fall into each bin of the reference; int64, in the order of its names."""
    if reference.categories is not None:
        place = {category: index for index, category in enumerate(reference.categories)}
        other = len(place)
        known = np.array([place.get(text, other) for text in _texts(values)], dtype=np.int64)
        counts = np.bincount(known, minlength=other + 2)
        counts[other + 1] = len(values) - len(known)
        return counts
    numbers = values.astype(np.float64)
    numbers = numbers[~np.isnan(numbers)]
    edges = np.asarray(reference.edges)
    size = len(edges)
    bins = np.searchsorted(edges, numbers, side="right") - 1
    bins[bins < 0] = size
    bins[numbers > (edges[-1] if size else -np.inf)] = size + 1
    counts = np.bincount(bins, minlength=size + 3)
    counts[size + 2] = len(values) - len(numbers)
    return counts


def js_distance(p_counts: Counts, q_counts: Counts) -> float:
    """Jensen-Shannon distance of two histograms over the same bins: root of the divergence in bits, 0 equal to 1 disjoint.

    Each side is first given `SMOOTHING` counts per occupied bin, spread as both together are, so that a few rows do not
    look far away. Source: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37, 1991.

    Raises:
        ValueError: the shapes differ or a side has no rows.
    """
    return float(js_distances(p_counts, q_counts))


def js_distances(p_counts: Counts, q_counts: Counts) -> NDArray[np.float64]:
    """`js_distance` of each pair of histograms along the last axis of two arrays of one shape."""
    _check(p_counts, q_counts)
    rows, others = p_counts.sum(axis=-1, keepdims=True), q_counts.sum(axis=-1, keepdims=True)
    together = (p_counts / rows + q_counts / others) / 2
    weight = SMOOTHING * (together > 0).sum(axis=-1, keepdims=True)
    p = (p_counts + weight * together) / (rows + weight)
    q = (q_counts + weight * together) / (others + weight)
    middle = np.where(together > 0, (p + q) / 2, 1.0)
    terms = p * np.log2(np.where(p > 0, p, 1.0) / middle) + q * np.log2(np.where(q > 0, q, 1.0) / middle)
    distances: NDArray[np.float64] = np.sqrt(np.maximum(terms.sum(axis=-1) / 2, 0.0))
    return distances


def js_noise(p_counts: Counts, q_counts: Counts, alpha: float) -> float:
    """The distance that two samples of one distribution, as large as these, exceed with probability ``alpha``.

    ``8 ln 2 JSD / (1 / n + 1 / m)`` is about chi-square with one degree less than there are occupied bins (second-order
    expansion of the divergence); its quantile by Wilson, Hilferty, PNAS 17, 1931. Errors as `js_distance`.
    """
    _check(p_counts, q_counts)
    degrees = int((p_counts + q_counts > 0).sum()) - 1
    if degrees == 0:
        return 0.0
    part = 2 / (9 * degrees)
    quantile = degrees * (1 - part + NormalDist().inv_cdf(1 - alpha) * math.sqrt(part)) ** 3
    return math.sqrt(quantile * float(1 / p_counts.sum() + 1 / q_counts.sum()) / (8 * math.log(2)))


def _check(p: Counts, q: Counts) -> None:
    if p.shape != q.shape:
        raise ValueError(f"histograms of shapes {p.shape} and {q.shape} have different bins")
    if not (p.sum(axis=-1).all() and q.sum(axis=-1).all()):
        raise ValueError("a histogram without rows has no distance to another")


def _texts(values: NDArray[Any]) -> list[str]:
    return [str(value) for value in values.tolist() if value is not None and not (isinstance(value, float) and math.isnan(value))]
