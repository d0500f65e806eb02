"""Does a feature know what it cannot: the label, the future, the row?

A warning, not a proof: an honest feature may be this strong (yesterday's price), so each finding says what was measured and what
to look at. What depends on chance is measured on rows that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.metrics.intervals import clopper_pearson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 64
NEAR = 0.97
"""ROC AUC, or R2 of the label's rank, of one feature from which it is said to know the label."""
TIMES = 100.0
"""How many times as likely a row of one class must be on one side of a split as a row of the other."""
HELD = 0.1
"""The share of its class that such a split must hold."""
WEAK = 0.8
"""The ROC AUC below which the feature must fall on the other rows."""
STRONG = 0.3
"""Power, ``2 * AUC - 1`` or R2, that a feature must have for its loss by a lag to be remarkable."""
UNIQUE = 0.95
MONOTONE = 0.99
PERMUTATIONS = 99
ROWS = 20_000
MIN_ROWS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature that may know the ``label``, the ``future`` or the ``row id``: the figure, what it measures, what to do."""

    feature: str
    kind: Literal["label", "future", "row id"]
    figure: float
    measure: str
    mend: str

    def __str__(self) -> str:
        return f"Feature '{self.feature}' may know the {self.kind}: {self.measure} {self.figure:.3g}. {self.mend}"


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rows to look at: the label (its rank, unless it has two classes), the half that each is in, whether there are two classes."""

    label: Floats
    half: Ints
    binary: bool


def find_leaks(
    columns: Mapping[str, Array], label: Floats, as_of: Ints, *, rng: np.random.Generator, known: Mapping[str, Array] | None = None,
    lagged: Mapping[str, Array] | None = None,
) -> tuple[Finding, ...]:  # fmt: skip
    """What looks leaked, in order of the columns; all arrays have shape ``(n,)``.

    ``known`` holds columns worked out with nothing but what was known at ``as_of``: one that differs from its column saw the
    future. ``lagged`` holds columns as of an earlier instant (a day before, say): a strong feature that such a lag makes
    powerless saw what had just happened, perhaps the outcome. At most 20,000 rows, drawn at random, are used for what is
    estimated. Fewer than 100 rows, or a label of one value, say nothing about the label.
    """
    chosen = np.sort(rng.permutation(len(label))[:ROWS])
    sample = _sample(label[chosen], rng.permutation(len(chosen)) % 2)
    taken = {name: column[chosen] for name, column in columns.items()}
    told = _of_label(taken, sample, rng) if len(chosen) >= MIN_ROWS and np.ptp(sample.label) > 0 else {}
    findings: list[Finding] = []
    for name, column in columns.items():
        findings += told.get(name, ())
        if known is not None and name in known:
            findings += _of_hindsight(name, column, known[name])
        if lagged is not None and name in lagged and len(chosen) >= MIN_ROWS:
            findings += _of_lag(name, taken[name], lagged[name][chosen], sample)
        if len(column) >= MIN_ROWS:
            findings += _of_row(name, column, as_of)
    return tuple(findings)


def power(column: Array, label: Floats, half: Ints) -> float:
    """How well one feature alone foretells the label: ROC AUC (two classes) or R2 of the label's rank, by its mean over bins.

    Means come from the other ``half`` (0 or 1, shape ``(n,)``), so that noise has about 0.5 or 0.
    """
    return _power(_codes(column), _sample(label, half))


def _of_label(columns: Mapping[str, Array], sample: _Sample, rng: np.random.Generator) -> dict[str, list[Finding]]:
    codes = {name: _codes(column) for name, column in columns.items()}
    found = {name: _power(one, sample) for name, one in codes.items()}
    reference = _reference(codes, sample, rng) if max(found.values()) >= NEAR else 1.0
    measure = "ROC AUC on its own" if sample.binary else "R2 on its own"
    mend = "See whether it is written after the outcome: drop it then, or take it as of the question."
    told = {name: [Finding(name, "label", figure, measure, mend)] if NEAR <= figure > reference else [] for name, figure in found.items()}
    for name in columns:
        if sample.binary and not told[name]:
            told[name] = _of_split(name, codes[name], sample)
    return told


def _reference(codes: Mapping[str, Ints], sample: _Sample, rng: np.random.Generator) -> float:
    """The greatest power of any feature over shuffled labels: what chance can do with so many features and so few rows."""
    most = 0.0
    for _ in range(PERMUTATIONS):
        shuffled = replace(sample, label=rng.permutation(sample.label))
        most = max(most, *(_power(one, shuffled) for one in codes.values()))
    return most


def _of_split(name: str, codes: Ints, sample: _Sample) -> list[Finding]:
    """One cut, or one value, that holds a good part of one class and almost nothing of the other."""
    codes = _lumped(codes)
    size = int(codes.max()) + 1
    cells = (sample.label.astype(np.int64) * 2 + sample.half) * size + codes
    counts = np.bincount(cells, minlength=4 * size).reshape(2, 2, size)
    regions = np.concatenate([np.eye(size, dtype=np.bool_), np.tri(size, dtype=np.bool_), ~np.tri(size, dtype=np.bool_)])
    for inside, outside in ((counts[1], counts[0]), (counts[0], counts[1])):
        hits, misses = regions @ inside[0], regions @ outside[0]
        worth = np.where(hits >= HELD * inside[0].sum(), hits / (misses + 1), 0.0)
        best = regions[int(worth.argmax())]
        share = float(inside[1][best].sum() / max(1, inside[1].sum()))
        least = share / clopper_pearson(int(outside[1][best].sum()), int(outside[1].sum()))[1]
        if worth.max() and share >= HELD and least >= TIMES and _weak(codes, sample, ~best[codes]):
            measure = f"one split holds {share:.0%} of one class, where a row of it is more likely than one of the other by a factor of"
            return [Finding(name, "label", least, measure, "See whether it is only filled in once the outcome is known: drop it then.")]
    return []


def _weak(codes: Ints, sample: _Sample, rest: npt.NDArray[np.bool_]) -> bool:
    """Whether a feature says little about the ``rest`` of the rows: an honest strong one goes on where its extremes end."""
    left = _Sample(sample.label[rest], sample.half[rest], True)
    return not np.ptp(left.label) or _power(codes[rest], left) < WEAK


def _of_hindsight(name: str, column: Array, known: Array) -> list[Finding]:
    differ = float((~_equal(column, known)).mean())
    if not differ:
        return []
    measure = "share of rows whose value differs from what was known at the time"
    return [Finding(name, "future", differ, measure, "Build it with known_as_of=True, or give its source a known_time.")]


def _of_lag(name: str, column: Array, lagged: Array, sample: _Sample) -> list[Finding]:
    now, before = (_excess(_power(_codes(one), sample), sample) for one in (column, lagged))
    if now < STRONG or before > now / 10:
        return []
    mend = "A lag takes its power away: see whether its facts are consequences of the outcome that arrive before the question is asked."
    return [Finding(name, "future", now, "power (2 AUC - 1, or R2) that a lag takes away", mend)]


def _of_row(name: str, column: Array, as_of: Ints) -> list[Finding]:
    present = _present(column)
    if present.sum() < MIN_ROWS:
        return []
    numbers = _numbers(column[present])
    distinct = len(set(map(str, column[present].tolist())) if numbers is None else np.unique(numbers)) / int(present.sum())
    if distinct < UNIQUE:
        return []
    mend = "It names the row and can only be learnt by heart: leave it out of the model's inputs, or make it a key."
    if numbers is None:
        return [Finding(name, "row id", distinct, "share of distinct values", mend)]
    in_time = abs(_correlation(_ranks(numbers), _ranks(as_of[present].astype(np.float64))))
    if in_time >= MONOTONE:
        return [Finding(name, "row id", in_time, "distinct values, rank correlation with time", mend)]
    whole = bool((numbers == np.floor(numbers)).all())
    if whole and np.ptp(numbers) < 2 * len(numbers):
        return [Finding(name, "row id", distinct, "whole numbers without gaps, share of distinct values", mend)]
    return []


def _power(codes: Ints, sample: _Sample) -> float:
    cells = codes * 2 + sample.half
    size = 2 * (int(codes.max()) + 1)
    rows = np.bincount(cells, minlength=size).reshape(-1, 2).astype(np.float64)
    sums = np.bincount(cells, sample.label, size).reshape(-1, 2)
    prior = sums.sum(axis=0) / np.maximum(rows.sum(axis=0), 1)
    means = ((sums + prior) / (rows + 1))[:, ::-1]
    if not sample.binary:
        total = float(np.square(sample.label - sample.label.mean()).sum())
        return 1 - float(np.square(sample.label).sum() - (2 * means * sums - means**2 * rows).sum()) / total
    return _area(means.ravel(), np.asarray(sums, dtype=np.float64).ravel(), (rows - sums).ravel())


def _area(score: Floats, true: Floats, false: Floats) -> float:
    """ROC AUC of cells with counts of true and false rows."""
    distinct, codes = np.unique(score, return_inverse=True)
    hits, misses = np.bincount(codes, true, len(distinct)), np.bincount(codes, false, len(distinct))
    return float((hits * (np.cumsum(misses) - misses / 2)).sum() / (hits.sum() * misses.sum()))


def _excess(found: float, sample: _Sample) -> float:
    return max(0.0, 2 * found - 1 if sample.binary else found)


def _codes(column: Array) -> Ints:
    """The bin of each row: quantiles of numbers, values of text; the last one for what is missing."""
    numbers = _numbers(column)
    if numbers is None:
        places: dict[str, int] = {}
        codes = np.array([-1 if value is None else places.setdefault(str(value), len(places)) for value in column.tolist()], dtype=np.int64)
        return np.where(codes < 0, len(places), codes)
    present = numbers[~np.isnan(numbers)]
    edges = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf")) if len(present) else np.zeros(0)
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="left"))


def _lumped(codes: Ints) -> Ints:
    """Codes of which at most `BINS` stay apart, those of the most rows, in their order; the last one is all others."""
    counts = np.bincount(codes)
    if len(counts) <= BINS + 2:
        return codes
    kept = np.sort(np.argsort(-counts, kind="stable")[:BINS])
    place = np.full(len(counts), BINS)
    place[kept] = np.arange(BINS)
    return place[codes]


def _numbers(column: Array) -> Floats | None:
    """A column as float64, NaN for missing; None where it holds text."""
    if column.dtype != object:
        return column.astype(np.float64) if column.dtype.kind in "fiub" else None
    if any(isinstance(value, str | list | dict) for value in column.tolist()):
        return None
    return np.array([np.nan if value is None else value for value in column.tolist()], dtype=np.float64)


def _present(column: Array) -> npt.NDArray[np.bool_]:
    if column.dtype.kind == "f":
        return ~np.isnan(column)
    return np.array([value is not None for value in column.tolist()]) if column.dtype == object else np.ones(len(column), dtype=np.bool_)


def _equal(one: Array, other: Array) -> npt.NDArray[np.bool_]:
    numbers, others = _numbers(one), _numbers(other)
    if numbers is None or others is None:
        return np.array([a == b for a, b in zip(one.tolist(), other.tolist(), strict=True)], dtype=np.bool_)
    return np.isclose(numbers, others, rtol=1e-9, atol=0, equal_nan=True)


def _ranks(values: Floats) -> Floats:
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[codes]


def _correlation(one: Floats, other: Floats) -> float:
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def _sample(label: Floats, half: Ints) -> _Sample:
    binary = bool(np.isin(label, (0.0, 1.0)).all())
    return _Sample(label.astype(np.float64) if binary else _ranks(label), half, binary)
