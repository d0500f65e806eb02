"""How the answers follow one feature: partial dependence with a curve for each row, accumulated local effects, and interactions of two."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.columns import Array
from mainspring.errors import DeclarationError
from mainspring.evaluation.explain.importance import Columns, Floats, Predict, check_columns, mean_intervals
from mainspring.metrics.resampling import resamples

Ints = npt.NDArray[np.int64]
POINTS = 20
"""Values of a feature at which it is looked, at most: quantiles of a number, the most frequent of others."""
ROWS = 500
"""Rows that partial dependence looks at, at most."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """How answers follow a feature: at each of the ``values`` the ``effect`` with its interval, each of shape ``(points,)``.

    Values are such as occur, in order; None is missing. ``share`` is the part of the rows that each value stands for. ``curves`` of
    shape ``(rows, points)`` are the answers of single rows (none for accumulated effects). ``categories`` is whether the values
    have no order of their own.
    """

    feature: str
    values: tuple[Any, ...]
    effect: Floats
    low: Floats
    high: Floats
    share: Floats
    curves: Floats
    categories: bool


def partial_dependence(
    predict: Predict, columns: Columns, feature: str, *, rng: np.random.Generator, points: int = POINTS, rows: int = ROWS, draws: int = 500,
    level: float = 0.95,
) -> Dependence:  # fmt: skip
    """The mean answer, and that of each row, when the feature has one value in every row; over at most ``rows`` of them, drawn.

    Where features hang together it asks for rows that cannot be; `accumulated_local_effects` does not. Sources: Friedman, "Greedy
    function approximation", 2001; Goldstein et al., "Peeking inside the black box" (single rows), 2015.

    Raises:
        DeclarationError: there is no such feature, or ``predict`` gives several numbers a row.
    """
    check_columns(columns, [feature])
    grid, share, categories = _grid(columns[feature], points)
    taken = _drawn(columns, rows, rng)
    curves = _at(predict, taken, feature, grid)
    low, high = mean_intervals(curves, rng=rng, draws=draws, level=level)
    return Dependence(feature, tuple(grid), curves.mean(axis=0), low, high, share, curves, categories)


def accumulated_local_effects(
    predict: Predict, columns: Columns, feature: str, *, rng: np.random.Generator, points: int = POINTS, blocks: Array | None = None,
    draws: int = 200, level: float = 0.95,
) -> Dependence:  # fmt: skip
    """What the feature alone adds to the answer, against its mean effect of 0: differences between near values, of rows that have them.

    Numbers are cut at quantiles. Categories, the most frequent, are put in an order in which neighbours have alike other features.
    Rows where the feature is missing are left out. Source: Apley and Zhu, "Visualizing the effects of predictor variables in black
    box supervised learning models", 2020.

    Raises:
        DeclarationError: there is no such feature, it has fewer than two values, or ``predict`` gives several numbers a row.
    """
    check_columns(columns, [feature])
    values, _, categories = _grid(columns[feature], points)
    known = [value for value in values if value is not None]
    if len(known) < 2:
        raise DeclarationError(
            f"Explanation: feature '{feature}' has fewer than two values in these rows. Explain another, or take more rows."
        )
    ordered = _alike(columns, feature, known) if categories else known
    step, rise, row = _rises(predict, columns, feature, ordered, categories)
    held = _places(columns[feature], ordered, categories)
    share = np.bincount(held[held >= 0], minlength=len(ordered)) / max((held >= 0).sum(), 1)

    def accumulated(taken: Ints) -> Floats:
        times = np.bincount(taken, minlength=len(held))
        sums, counts = (np.bincount(step, times[row] * one, len(ordered) - 1) for one in (rise, np.ones(len(rise))))
        effect = np.concatenate([[0.0], np.cumsum(sums / np.maximum(counts, 1))])
        among = share if categories else np.bincount(step, times[row], len(ordered) - 1)
        height = effect if categories else (effect[1:] + effect[:-1]) / 2
        centred: Floats = effect - np.average(height, weights=among)
        return centred

    drawn = np.array([accumulated(taken) for taken in resamples(blocks, len(held), rng=rng, draws=draws)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    none = np.empty((0, len(ordered)))
    return Dependence(feature, tuple(ordered), accumulated(np.arange(len(held))), low, high, share, none, categories)


def interaction(predict: Predict, columns: Columns, first: str, second: str, *, rng: np.random.Generator, rows: int = 50) -> float:
    """The share of the variance of two features' common effect that is in neither alone: 0 where their effects add up.

    It is the square of the H statistic, from ``3 rows ** 2`` answers. Source: Friedman and Popescu, "Predictive learning via rule
    ensembles", 2008, equation 44.

    Raises:
        DeclarationError: there is no such feature, or ``predict`` gives several numbers a row.
    """
    check_columns(columns, [first, second])
    taken = _drawn(columns, rows, rng)
    n = len(next(iter(taken.values())))

    def centred(*names: str) -> Floats:
        every = {name: np.tile(column, n) for name, column in taken.items()} | {name: np.repeat(taken[name], n) for name in names}
        means = _answers(predict, every).reshape(n, n).mean(axis=1)
        return np.asarray(means - means.mean())

    both = centred(first, second)
    size = float(np.square(both).sum())
    return float(np.square(both - centred(first) - centred(second)).sum()) / size if size > 0 else 0.0


def _grid(column: Array, points: int) -> tuple[list[Any], Floats, bool]:
    """Values to look at, with the share of rows that each stands for, and whether they are categories; None last where some are missing."""
    values = [None if value is None or value != value else value for value in column.tolist()]
    some = [value for value in values if value is not None]
    categories = has_categories(column)
    if categories:
        counts = Counter(some)
        grid = sorted(counts, key=lambda value: (-counts[value], str(value)))[:points]
    else:
        grid = np.unique(np.quantile(some, np.linspace(0, 1, points), method="inverted_cdf")).tolist() if some else []
    held = _places(column, grid, categories)
    share = np.bincount(held[held >= 0], minlength=len(grid)).tolist()
    missing = len(values) - len(some)
    return [*grid, *([None] if missing else [])], np.array([*share, *([missing] if missing else [])]) / len(values), categories


def _places(column: Array, grid: list[Any], categories: bool) -> Ints:
    """Which value of the grid each row has, or is nearest above; -1 for missing and for categories that are not in it."""
    if categories:
        place = {value: number for number, value in enumerate(grid)}
        return np.array([place.get(value, -1) for value in column.tolist()], dtype=np.int64)
    numbers = numbers_of(column)
    return np.where(np.isnan(numbers), -1, np.minimum(np.searchsorted(grid, numbers), len(grid) - 1)).astype(np.int64)


def _rises(predict: Predict, columns: Columns, feature: str, grid: list[Any], categories: bool) -> tuple[Ints, Floats, Ints]:
    """For each step of the grid what the answer of each row near it rises by: the step, the rise, and the row, of one length."""
    held = _places(columns[feature], grid, categories)
    if categories:
        rows = np.concatenate([np.flatnonzero((held >= 0) & (held < len(grid) - 1)), np.flatnonzero(held > 0)])
        step = np.concatenate([held[(held >= 0) & (held < len(grid) - 1)], held[held > 0] - 1])
    else:
        rows = np.flatnonzero(held >= 0)
        step = np.maximum(held[rows], 1) - 1
    ends = [_with(columns, rows, feature, [grid[one] for one in (step + end).tolist()]) for end in (0, 1)]
    below, above = (_answers(predict, one) for one in ends)
    return step, np.asarray(above - below), rows


def _alike(columns: Columns, feature: str, values: list[Any]) -> list[Any]:
    """The categories along the first axis of a classical scaling of their distances in the other features."""
    held = _places(columns[feature], values, True)
    distance = np.zeros((len(values), len(values)))
    for name, column in columns.items():
        if name != feature and not any(isinstance(value, list | dict) for value in column.tolist()):
            grid, _, categories = _grid(column, POINTS)
            places = _places(column, [one for one in grid if one is not None], categories) + 1
            table = np.zeros((len(values), len(grid) + 1))
            np.add.at(table, (held[held >= 0], places[held >= 0]), 1)
            table /= np.maximum(table.sum(axis=1, keepdims=True), 1)
            apart = np.abs(table[:, None] - table[None]) if categories else np.abs(np.cumsum(table[:, None] - table[None], axis=2))
            distance += apart.sum(axis=2) / 2 if categories else apart.max(axis=2)
    middle = np.eye(len(values)) - 1 / len(values)
    axis = np.linalg.eigh(-middle @ distance**2 @ middle / 2)[1][:, -1]
    return [values[place] for place in np.argsort(axis * (np.sign(axis[0]) or 1.0), kind="stable").tolist()]


def _at(predict: Predict, columns: Columns, feature: str, grid: list[Any]) -> Floats:
    """The answers of each row with each value, ``(rows, points)``."""
    n = len(next(iter(columns.values())))
    every = _with(columns, np.tile(np.arange(n), len(grid)), feature, [value for value in grid for _ in range(n)])
    return _answers(predict, every).reshape(len(grid), n).T


def _with(columns: Columns, rows: Ints, feature: str, values: list[Any]) -> dict[str, Array]:
    """Those rows, the feature having those values."""
    return {name: column[rows] if name != feature else as_column(values, column.dtype) for name, column in columns.items()}


def as_column(values: list[Any], dtype: Any) -> Array:
    """Values, None for missing, as a column like another; of objects where such a column cannot hold None."""
    if dtype == np.float64:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if dtype != np.dtype(object) and None not in values:
        return np.array(values, dtype=dtype)
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def _answers(predict: Predict, columns: Columns) -> Floats:
    answers = predict(columns)
    if answers.ndim != 1:
        raise DeclarationError(
            f"Explanation: the model gives {answers.shape[1]} numbers a row. Explain one: lambda columns: model.predict(columns)[:, 0]."
        )
    return answers


def _drawn(columns: Columns, rows: int, rng: np.random.Generator) -> dict[str, Array]:
    n = len(next(iter(columns.values())))
    taken = np.sort(rng.choice(n, rows, replace=False)) if n > rows else np.arange(n)
    return {name: column[taken] for name, column in columns.items()}


def has_categories(column: Array) -> bool:
    """Whether a column has values without an order: text, or true and false."""
    return column.dtype == np.bool_ or (column.dtype == object and any(isinstance(value, str | bool) for value in column.tolist()))


def numbers_of(column: Array) -> Floats:
    """A column of numbers as float64, NaN for missing."""
    if column.dtype != object:
        return column.astype(np.float64)
    return np.array([np.nan if value is None else value for value in column.tolist()], dtype=np.float64)
