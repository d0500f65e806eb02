"""The gate: a challenger must beat the rules, must not be worse than the champion, and must not be shown to miss what was promised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.evaluation.evaluate import CHAMPION
from mainspring.evaluation.record import Against, Evaluation, Promise

TITLES = {"mae": "MAE", "brier": "Brier score", "multiclass_log_loss": "log loss", "pinball": "pinball loss"}


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether the challenger passed, why, the figures behind it, and the evaluation that they come from."""

    passed: bool
    reason: str
    metrics: Mapping[str, Any]
    evaluation: Evaluation


def judge(evaluation: Evaluation, *, margin: float) -> GateResult:
    """Pass when the ratio of losses to every baseline is below 1 with its whole interval, that to the champion is shown to be below
    ``1 + margin`` (non-inferiority, never "no significant harm"), and no declared quality is shown to be missed, with its whole interval.

    Qualities that cannot be measured on held-out rows, and those that the rows leave open, refuse nothing.
    """
    title = TITLES[evaluation.loss]
    bounds = {one.rival: 1.0 + margin if one.rival == CHAMPION else 1.0 for one in evaluation.against}
    refusals = [_told(title, one, bounds[one.rival]) for one in evaluation.against if not _high(one) < bounds[one.rival]]
    refusals += [_missed(one) for one in evaluation.promises if one.refuted]
    if refusals:
        return GateResult(False, "; ".join(refusals), evaluation.figures(), evaluation)
    shown = ", ".join(f"{_figure(one.ratio)} x {one.rival}" for one in evaluation.against)
    reason = f"{title} {_figure(evaluation.own_loss.value, '.4g')} on {evaluation.rows} held-out rows{f': {shown}' if shown else ''}"
    return GateResult(True, reason, evaluation.figures(), evaluation)


def _told(title: str, one: Against, bound: float) -> str:
    return f"{title} {_figure(one.ratio)} x {one.rival} [{_figure(one.low)}, {_figure(one.high)}], must stay below {bound:g}"


def _missed(promise: Promise) -> str:
    found = promise.measured
    return f"{promise.text} is missed: {_figure(found.value, '.4g')} [{_figure(found.low, '.4g')}, {_figure(found.high, '.4g')}]"


def _high(one: Against) -> float:
    return math.inf if one.high is None else one.high


def _figure(value: float | None, form: str = ".3f") -> str:
    return "open" if value is None else f"{value:{form}}"
