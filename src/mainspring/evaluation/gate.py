"""The gate: a challenger must beat the rules and must not be worse than the champion on rows that neither was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.clock import DAY
from mainspring.metrics.intervals import ratio_interval
from mainspring.metrics.regression import bias, coverage, mae

Floats = npt.NDArray[np.float64]
LOSSES: Mapping[str, tuple[str, Callable[[Floats], Floats]]] = {"regression": ("MAE", np.abs), "binary": ("Brier score", np.square)}
"""By task, the loss that the gate compares, from errors to losses of the same shape."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Predictions on the held-out rows, in the label's unit, each of shape ``(n,)``."""

    score: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether the challenger passed, why, and the figures behind it."""

    passed: bool
    reason: str
    metrics: Mapping[str, Any]


def evaluate(truth: Floats, candidate: Candidate, baselines: Mapping[str, Floats]) -> dict[str, Any]:
    """MAE, bias, coverage of the interval, and the MAE of each baseline with the candidate's ratio to it."""
    figures: dict[str, Any] = {"rows": len(truth), "mae": mae(candidate.score, truth), "bias": bias(candidate.score, truth)}
    if candidate.low is not None and candidate.high is not None:
        figures["coverage"] = coverage(candidate.low, candidate.high, truth)
    figures["baselines"] = {name: mae(predicted, truth) for name, predicted in baselines.items()}
    return figures


def judge(
    truth: Floats, as_of: npt.NDArray[np.int64], challenger: Candidate, champion: Floats | None, baselines: Mapping[str, Floats],
    *, margin: float, task: str = "regression", level: float = 0.95, seed: int = 0,
) -> GateResult:  # fmt: skip
    """Compare on the same rows: the challenger's loss over each rival's, with a day-block bootstrap interval.

    The loss is the absolute error of a number (MAE), the squared error of a probability (Brier score).

    It passes when the ratio to every baseline is below 1 with its whole interval, and the ratio to the champion is shown
    to be at most ``1 + margin``: non-inferiority, never "no significant harm".
    """
    metrics = evaluate(truth, challenger, baselines)
    name_of_loss, losses = LOSSES[task]
    own = losses(challenger.score - truth)
    metrics["loss"] = {"name": name_of_loss, "value": float(own.mean())}
    rng = np.random.default_rng(seed)
    refusals = []
    rivals = {**{name: (predicted, 1.0) for name, predicted in baselines.items()}}
    if champion is not None:
        rivals["champion"] = (champion, 1.0 + margin)
        metrics["champion_mae"] = mae(champion, truth)
    metrics["ratios"] = {}
    for name, (predicted, bound) in rivals.items():
        theirs = losses(predicted - truth)
        low, high = ratio_interval(own, theirs, as_of // DAY, rng=rng, level=level)
        ratio = float(own.sum() / theirs.sum())
        metrics["ratios"][name] = {"ratio": ratio, "low": low, "high": high}
        if not high < bound:
            refusals.append(f"{name_of_loss} {ratio:.3f} x {name} [{low:.3f}, {high:.3f}], must stay below {bound:g}")
    if refusals:
        return GateResult(False, "; ".join(refusals), metrics)
    shown = ", ".join(f"{values['ratio']:.3f} x {name}" for name, values in metrics["ratios"].items())
    return GateResult(True, f"{name_of_loss} {float(own.mean()):.4g} on {len(truth)} held-out rows: {shown}", metrics)
