"""An evaluation of one version as data: frozen, and JSON to and fro."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mainspring.errors import RegistryError
from mainspring.evaluation.curves import BestThreshold
from mainspring.evaluation.measuring import Measured
from mainspring.measures import labelled

MET, MISSED, UNMEASURED = "met", "missed", "unmeasured"


@dataclass(frozen=True, slots=True)
class Promise:
    """A declared quality (``text``), what was measured, and whether its value is met, missed or unmeasured.

    ``refuted``: the whole interval lies outside of the bounds, so that the promise is shown to be missed.
    """

    text: str
    measured: Measured
    verdict: str
    refuted: bool


@dataclass(frozen=True, slots=True)
class Against:
    """The comparison loss over that of a rival (a baseline, or ``champion``) on the same rows, with its interval.

    ``loss`` is the rival's own. ``p`` is that of "both are equal", adjusted by Holm for all rivals. Where the rival has no loss at all, the
    ratio is 1 if there was none on either side, and else None.
    """

    rival: str
    loss: float
    ratio: float | None
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True, slots=True)
class Slice:
    """A declared slice: its rows, its comparison loss (the first measure), and every measure whose interval is cheap."""

    name: str
    rows: int
    measures: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Worse:
    """A slice that was found to be worse, measured on the rows that it was not looked for on; see `FoundSlice`."""

    name: str
    rows: int
    loss: float
    excess: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Step:
    """Rows of neighbouring answers: their number, the mean answer, the mean of what came, and its interval."""

    rows: int
    predicted: float
    came: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """Intercept and slope of what came on what was predicted, on the logit scale; 0 and 1 are calibrated. With standard errors."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """What an alert from ``threshold`` up brings; ``precision`` is None where there is no alert, ``cost`` where no costs are declared."""

    threshold: float
    alert_rate: float
    precision: float | None
    recall: float | None
    false_alarm_rate: float | None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """A column that the model reads, on the held-out rows: share of nulls, range of a number or else how many different values, and the
    model's own measure of its importance (None where its learner has none).
    """

    name: str
    importance: float | None
    nulls: float
    least: float | None
    most: float | None
    values: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A version on ``rows`` held-out rows from ``since`` to ``until`` (instants, None where rows have no time).

    ``split`` says how they were held out, ``drawn`` what intervals draw, ``level`` their level. ``loss`` is what slices and rivals are
    compared by, with ``loss_options``, ``error`` the mean absolute distance of answer and label, where the answer is one number.
    ``unmeasured`` maps what could not be measured to the reason, ``latency`` quantiles (p50, p99) to microseconds a row.
    ``inputs`` are the model's columns, the most important first; ``seconds`` is what the evaluation took.
    """

    task: str
    rows: int
    since: int | None
    until: int | None
    split: Mapping[str, Any]
    drawn: str
    level: float
    loss: str
    loss_options: Mapping[str, Any]
    error: float | None
    measures: tuple[Measured, ...]
    promises: tuple[Promise, ...]
    against: tuple[Against, ...]
    slices: tuple[Slice, ...]
    worse: tuple[Worse, ...]
    calibration: tuple[Step, ...]
    line: Line | None = None
    thresholds: tuple[Threshold, ...] = ()
    best: BestThreshold | None = None
    latency: Mapping[str, float] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Input, ...] = ()
    seconds: float = 0.0

    @property
    def own_loss(self) -> Measured:
        """The comparison loss of the version."""
        wanted = labelled(self.loss, self.loss_options)
        return next(one for one in self.measures if one.label == wanted)

    def figures(self) -> dict[str, Any]:
        """What a manifest and a decision hold of it: rows, the value of every measure, losses of rivals with ratios, promises."""
        own = self.own_loss
        return {
            "rows": self.rows,
            **({} if self.error is None else {"mae": self.error}),
            **{one.label: one.value for one in self.measures if one.value is not None},
            "loss": {"name": own.label, "value": own.value},
            "baselines": {one.rival: one.loss for one in self.against},
            "ratios": {one.rival: {"ratio": one.ratio, "low": one.low, "high": one.high, "p": one.p} for one in self.against},
            "promises": {one.text: one.verdict for one in self.promises},
        }

    def to_json(self) -> bytes:
        """The evaluation as JSON; what is not finite is null."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Evaluation:
        """What `to_json` wrote.

        Raises:
            RegistryError: it is no evaluation, or one of another release.
        """
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise RegistryError(f"Evaluation: this is none that this release reads ({error}). Evaluate the version again.") from error
