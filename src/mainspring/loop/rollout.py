"""The rollout controller: shadow, then a rising share of the answers, forward or back on evidence alone.

While a rollout runs, champion and challenger score every request, one of them in shadow, so that the comparison is paired
and independent of the split. The statistic is the difference of absolute errors under an always-valid confidence sequence:
looking often cannot raise the error probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.clock import parse_duration
from mainspring.metrics.sequential import confidence_sequence
from mainspring.model_registry.deployment import Deployment
from mainspring.spec import Rollout

Outcome = Literal["advance", "hold", "roll_back", "insufficient"]
FAILURE_SHARE = 0.05
FAILURE_COUNT = 5


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a rollout: the outcome, why, and the figures it rests on."""

    outcome: Outcome
    reason: str
    evidence: dict[str, Any]


def look(rollout: Rollout, deployment: Deployment, labelled: pa.Table, began: int, now: int) -> Look:
    """Judge the running rollout at ``now`` on the labelled predictions made since it ``began``.

    ``labelled`` has ``score``, ``shadow_score``, ``variant``, ``version``, ``shadow_version``, ``answered_by``, ``label``.
    """
    failed = _failures(deployment, labelled)
    if failed is not None:
        return failed
    challenger, champion = paired_errors(deployment, labelled)
    n = len(challenger)
    evidence: dict[str, Any] = {"pairs": n, "share": deployment.share}
    if n < rollout.min_labels:
        if now - began >= parse_duration(rollout.patience):
            return Look("roll_back", f"too few labelled answers in {rollout.patience}: {n} of {rollout.min_labels}", evidence)
        return Look("insufficient", f"{n} of {rollout.min_labels} labelled answers", evidence)
    difference = challenger - champion
    bound = rollout.margin * float(champion.mean())
    low, high = confidence_sequence(
        n, float(difference.mean()), float(difference.var()), alpha=rollout.alpha, tune_at=5 * rollout.min_labels
    )
    evidence |= {
        "challenger_error": float(challenger.mean()),
        "champion_error": float(champion.mean()),
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "margin": bound,
    }
    shown = f"error {challenger.mean():.2f} against {champion.mean():.2f}, difference [{low:+.2f}, {high:+.2f}] over {n} pairs"
    if low > bound:
        return Look("roll_back", f"worse by more than {rollout.margin:.0%}: {shown}", evidence)
    wait = parse_duration(rollout.shadow if deployment.stage == "shadow" else rollout.step)
    if high < bound and now - deployment.since >= wait:
        return Look("advance", f"not worse by {rollout.margin:.0%}: {shown}", evidence)
    if now - began >= parse_duration(rollout.patience):
        return Look("roll_back", f"undecided for {rollout.patience}: {shown}", evidence)
    return Look("hold", shown, evidence)


def next_share(rollout: Rollout, deployment: Deployment) -> float:
    """The share of answers the challenger gives after the present stage; 1.0 means promote."""
    return next(share for share in rollout.steps if share > deployment.share)


def paired_errors(deployment: Deployment, labelled: pa.Table) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Absolute errors of challenger and champion on the rows that both scored, each of shape ``(n,)``."""
    answered, shadow = labelled.column("version").to_pylist(), labelled.column("shadow_version").to_pylist()
    pairs = {(deployment.challenger, deployment.champion), (deployment.champion, deployment.challenger)}
    both = np.array([pair in pairs for pair in zip(answered, shadow, strict=True)], dtype=bool)
    by_model = np.array([how == "model" for how in labelled.column("answered_by").to_pylist()], dtype=bool)
    score, other, label = (labelled.column(name).to_numpy() for name in ("score", "shadow_score", "label"))
    both &= by_model & ~np.isnan(other.astype(float))
    own = np.array([version == deployment.challenger for version in answered], dtype=bool)[both]
    first, second = np.abs(score[both] - label[both]), np.abs(other[both].astype(float) - label[both])
    return np.where(own, first, second), np.where(own, second, first)


def _failures(deployment: Deployment, labelled: pa.Table) -> Look | None:
    """Roll back when the challenger, asked to answer or to score in shadow, too often could not."""
    asked = failed = 0
    columns = ("variant", "answered_by", "shadow_version", "shadow_score")
    for variant, answered_by, shadow, score in zip(*(labelled.column(name).to_pylist() for name in columns), strict=True):
        if variant == "challenger":
            asked, failed = asked + 1, failed + (answered_by != "model")
        elif shadow == deployment.challenger:
            asked, failed = asked + 1, failed + (score is None)
    if failed >= FAILURE_COUNT and failed > FAILURE_SHARE * asked:
        return Look("roll_back", f"failed on {failed} of {asked} requests", {"asked": asked, "failed": failed})
    return None
