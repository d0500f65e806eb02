"""Two models side by side on the same rows: size, time of a row, rows a second, and what the smaller one loses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.metrics import METRICS, paired_bootstrap
from mainspring.models.protocol import Floats

WARM, PASSES, BATCHES, ENOUGH = 20, 2, 5, 5.0
KINDS = ("regression", "binary", "multiclass")
_BY_ALERTS = tuple(name for name, one in METRICS.items() if "alert_rate" in one.options)


@dataclass(frozen=True, slots=True)
class Bound:
    """The loss that is acceptable: how much worse ``metric`` may become, in its own unit; the whole interval must lie below ``most``.

    ``alert_rate`` is the share of rows that are alerts, for the measures that need it.

    Raises:
        DeclarationError: the measure is not known or has no better end, or ``most`` is not above 0.
    """

    metric: str
    most: float
    alert_rate: float | None = None

    def __post_init__(self) -> None:
        known = [name for name, one in METRICS.items() if one.better in ("higher", "lower") and one.kind in KINDS]
        if self.metric not in known:
            raise DeclarationError(f"Bound: the measure '{self.metric}' cannot bound a loss.{did_you_mean(self.metric, known)}")
        if not self.most > 0:
            raise DeclarationError(f"Bound: most={self.most:g} lets nothing through, not even no loss. Give a number above 0.")
        if ("alert_rate" in METRICS[self.metric].options) != (self.alert_rate is not None) or not 0 < (self.alert_rate or 0.5) <= 1:
            raise DeclarationError(
                f"Bound: '{self.metric}' with alert_rate={self.alert_rate}. "
                f"Give a share of alerts to {', '.join(_BY_ALERTS)}, and to no other."
            )

    @property
    def kind(self) -> str:
        """The task that it is for."""
        return METRICS[self.metric].kind

    def value(self, answers: Floats, truth: Floats) -> float:
        """The measure of answers."""
        options = {} if self.alert_rate is None else {"alert_rate": self.alert_rate}
        return METRICS[self.metric].function(answers, truth, **options)


@dataclass(frozen=True, slots=True)
class Side:
    """A model to measure: its size in bytes, what answers the row of a number, and what answers all rows at once."""

    bytes: int
    answer: Callable[[int], Any]
    batch: Callable[[], Floats]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one side; times of one row in microseconds, ``value`` of the measure on all rows."""

    bytes: int
    p50: float
    p99: float
    rows_per_second: float
    value: float


@dataclass(frozen=True, slots=True)
class Loss:
    """How much worse the smaller model is on ``rows`` rows, with a paired interval; None where too few blocks tell nothing."""

    metric: str
    lost: float
    low: float | None
    high: float | None
    most: float
    rows: int

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies below what may be lost."""
        return self.high is not None and self.high < self.most


@dataclass(frozen=True, slots=True)
class Table:
    """The original, the smaller one, and the loss."""

    original: Figures
    compressed: Figures
    loss: Loss

    @property
    def smaller(self) -> float:
        """How many times fewer bytes."""
        return self.original.bytes / self.compressed.bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "smaller": self.smaller, "holds": self.loss.holds}

    def lines(self) -> list[str]:
        """For a terminal."""
        first, second = self.original, self.compressed
        ratios = (self.smaller, first.p50 / second.p50, first.p99 / second.p99, second.rows_per_second / first.rows_per_second)
        cells = {
            "": ("KB", "p50 us", "p99 us", "rows/s", self.loss.metric),
            **{name: _cells(one) for name, one in (("original", first), ("compressed", second))},
            "times better": tuple(f"{ratio:.2f}" for ratio in ratios),
        }
        return [*(f"{name:<14}{''.join(f'{cell:>13}' for cell in row)}" for name, row in cells.items()), str_of(self.loss)]


def _cells(one: Figures) -> tuple[str, ...]:
    return f"{one.bytes / 1e3:.1f}", f"{one.p50:.1f}", f"{one.p99:.1f}", f"{one.rows_per_second:,.0f}", f"{one.value:.5g}"


def str_of(loss: Loss) -> str:
    """A loss in one line."""
    interval = "no interval" if loss.high is None else f"[{loss.low:+.4g}, {loss.high:+.4g}]"
    return f"{loss.metric} lost {loss.lost:+.4g} {interval} on {loss.rows:,} held-out rows, must stay below {loss.most:g}"


def side_by_side(
    original: Side, compressed: Side, truth: Floats, bound: Bound, *, rows: int, blocks: npt.NDArray[Any] | None = None, seed: int = 0,
    draws: int = 1_000,
) -> Table:  # fmt: skip
    """Measure both: ``rows`` single rows and all rows at once, in turn, so that noise of the machine meets both alike.

    ``blocks`` labels rows that belong together, for the interval.
    """
    sides = (original, compressed)
    answers = [side.batch() for side in sides]
    times = _row_times(sides, rows)
    speeds = _speeds(sides, len(truth))
    loss = loss_of(bound, answers[0], answers[1], truth, blocks=blocks, seed=seed, draws=draws)
    figures = [
        Figures(side.bytes, _quantile(taken, 50), _quantile(taken, 99), speed, bound.value(answer, truth))
        for side, taken, speed, answer in zip(sides, times, speeds, answers, strict=True)
    ]
    return Table(figures[0], figures[1], loss)


def loss_of(
    bound: Bound, original: Floats, compressed: Floats, truth: Floats, *, blocks: npt.NDArray[Any] | None = None, seed: int = 0,
    draws: int = 1_000,
) -> Loss:  # fmt: skip
    """The loss from answers to the same rows, by the paired bootstrap over ``blocks``; errors as `paired_bootstrap`."""
    worse, better = (original, compressed) if METRICS[bound.metric].better == "higher" else (compressed, original)
    found = paired_bootstrap(bound.value, worse, better, [truth], rng=np.random.default_rng(seed), blocks=blocks, draws=draws)
    low, high = (end if isfinite(end) else None for end in (found.low, found.high))
    return Loss(bound.metric, found.difference, low, high, bound.most, len(truth))


def values_of(answers: Floats, truth: Floats, task: str) -> Mapping[str, float]:
    """Every measure of the task by name, but for those by alerts, where it is a number."""
    found = {name: one.function(answers, truth) for name, one in METRICS.items() if one.kind == task and name not in _BY_ALERTS}
    return {name: value for name, value in found.items() if isfinite(value)}


def _row_times(sides: tuple[Side, Side], rows: int) -> list[list[float]]:
    times: list[list[float]] = [[], []]
    for number in range(-WARM, PASSES * rows):
        turn = (0, 1) if number % 2 else (1, 0)
        for at in turn:
            taken = _timed(lambda at=at, number=number: sides[at].answer(number % rows))  # type: ignore[misc]
            if number >= 0:
                times[at].append(taken * 1e6)
    return times


def _speeds(sides: tuple[Side, Side], rows: int) -> list[float]:
    """Rows a second of each, by the median of at most `BATCHES` rounds; no further round begins after `ENOUGH` seconds."""
    taken: list[list[float]] = []
    while len(taken) < BATCHES and sum(map(sum, taken)) < ENOUGH:
        taken.append([_timed(side.batch) for side in sides])
    return [round(rows / statistics.median(one[at] for one in taken), 1) for at in range(2)]


def _quantile(times: list[float], percent: float) -> float:
    return round(float(np.percentile(times, percent)), 2)


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - started) / 1e9
