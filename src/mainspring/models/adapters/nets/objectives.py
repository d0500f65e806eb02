"""What a net is fitted to: one or several labels, each with its loss, its link and the scale that its raw scores start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError, TrainingError, did_you_mean
from mainspring.models.adapters.nets.runtime import functional, torch

Floats = npt.NDArray[np.float64]
Kind = Literal["regression", "l1", "quantile", "binary", "multiclass"]


@dataclass(frozen=True, slots=True)
class Task:
    """One label: its kind, what its loss counts beside other labels', the level of a quantile, the number of classes.

    ``centre`` and ``scale`` are learned: a raw score is the net's output times ``scale`` plus ``centre`` (the label's mean and standard
    deviation, median for `l1` and the quantile itself for `quantile`, or the log-odds of a binary label).
    """

    kind: Kind
    share: float = 1.0
    level: float = 0.5
    classes: int = 1
    centre: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DeclarationError(f"A net's objective '{self.kind}' is not known.{did_you_mean(self.kind, get_args(Kind))}")
        if not 0.0 < self.level < 1.0 or self.share <= 0.0:
            raise DeclarationError(
                f"A net's task has level {self.level} and share {self.share}. A level lies between 0 and 1, a share above 0."
            )

    @property
    def outputs(self) -> int:
        """How many numbers a net gives for it."""
        return self.classes if self.kind == "multiclass" else 1

    def learn(self, y: Floats, weight: Floats) -> Task:
        """The task with centre, scale and classes from training labels of shape ``(n,)``, NaN where there is none."""
        known = ~np.isnan(y)
        if not known.any():
            raise TrainingError("A net's label is missing in every row. Give each label at least one row.")
        y, weight = y[known], weight[known]
        if np.isinf(y).any():
            raise TrainingError(f"A net's label is infinite in {int(np.isinf(y).sum())} rows. Drop them, or mark them missing by NaN.")
        if self.kind == "multiclass":
            return replace(self, classes=_classes(y))
        if self.kind == "binary":
            if not np.isin(y, (0.0, 1.0)).all():
                raise TrainingError("A net's binary label has values other than 0 and 1. Code it so, or choose 'multiclass'.")
            rate = float(np.clip(np.average(y, weights=weight), 1e-6, 1 - 1e-6))
            return replace(self, centre=float(np.log(rate / (1 - rate))))
        level = {"l1": 0.5, "quantile": self.level}.get(self.kind)
        centre = np.average(y, weights=weight) if level is None else np.quantile(y, level)
        return replace(self, centre=float(centre), scale=float(y.std()) or 1.0)

    def losses(self, outputs: Any, y: Any) -> Any:
        """The loss of each row, ``(n,)``, in units of ``scale``, from the net's outputs ``(n, outputs)`` and float64 labels ``(n,)``."""
        if self.kind == "multiclass":
            return functional.cross_entropy(outputs, y.long(), reduction="none")
        if self.kind == "binary":
            return functional.binary_cross_entropy_with_logits(outputs[:, 0] + self.centre, y.to(outputs.dtype), reduction="none")
        short = (y - self.centre) / self.scale - outputs[:, 0]
        if self.kind == "regression":
            return 0.5 * short**2
        level = 0.5 if self.kind == "l1" else self.level
        return torch.maximum(level * short, (level - 1) * short)

    def link(self, raw: Floats) -> Floats:
        """Predictions from raw scores of shape ``(n, outputs)``."""
        if self.kind == "binary":
            return np.exp(-np.logaddexp(0.0, -raw))
        if self.kind == "multiclass":
            shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
            return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
        return raw


def learn_tasks(tasks: Sequence[Task], y: Floats, weight: Floats) -> tuple[Task, ...]:
    """The tasks as learned from labels of shape ``(n, tasks)``."""
    if y.shape[1] != len(tasks):
        raise TrainingError(f"A net with {len(tasks)} tasks got labels of shape {y.shape}. Give one column for each task.")
    return tuple(task.learn(y[:, i], weight) for i, task in enumerate(tasks))


def raw_scores(tasks: Sequence[Task], outputs: Any) -> Any:
    """The net's outputs of shape ``(n, all outputs)`` in the units of each task, float64."""
    scale = torch.tensor([task.scale for task in tasks for _ in range(task.outputs)], dtype=torch.float64)
    centre = torch.tensor([task.centre for task in tasks for _ in range(task.outputs)], dtype=torch.float64)
    return outputs * scale + centre


def mean_loss(tasks: Sequence[Task], outputs: Any, target: Any) -> Any:
    """The mean over rows of weight times the tasks' losses by share, for float64 targets ``(n, tasks + 1)``, the weight last.

    A row counts for nothing in a task whose label is NaN. Weights are not summed here: they have mean 1 over all rows, so that the mean
    over parts of a batch, on several processes, is the mean over the batch.
    """
    total, at = 0.0, 0
    for i, task in enumerate(tasks):
        y = target[:, i]
        known = ~torch.isnan(y)
        losses = task.losses(outputs[:, at : at + task.outputs], torch.where(known, y, 0.0)) * target[:, -1]
        total = total + task.share * torch.where(known, losses, 0.0).mean()
        at += task.outputs
    return total


def predictions(tasks: Sequence[Task], raw: Floats) -> Floats:
    """Predictions of shape ``(n, all outputs)``, or ``(n,)`` if that is one."""
    ends = np.cumsum([task.outputs for task in tasks])
    parts = [task.link(raw[:, end - task.outputs : end]) for task, end in zip(tasks, ends, strict=True)]
    return parts[0][:, 0] if raw.shape[1] == 1 else np.hstack(parts)


def targets(y: Floats, weight: Floats | None) -> Floats:
    """Labels of shape ``(n,)`` or ``(n, tasks)`` with the weights, brought to mean 1, as the last column."""
    labels = y[:, None] if y.ndim == 1 else y
    if weight is not None and not (np.isfinite(weight).all() and weight.min() >= 0 and weight.any()):
        raise TrainingError("A net's weights are negative, infinite, missing or all 0. Give each row a weight of 0 or more.")
    weights = np.ones(len(labels)) if weight is None else weight / weight.mean()
    return np.column_stack([labels, weights])


def tasks_to_list(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """JSON-ready form."""
    return [asdict(task) for task in tasks]


def tasks_from_list(body: Sequence[Mapping[str, Any]]) -> tuple[Task, ...]:
    """The tasks that `tasks_to_list` wrote."""
    return tuple(Task(**one) for one in body)


def _classes(y: Floats) -> int:
    if (y < 0).any() or (y != np.floor(y)).any():
        raise TrainingError("A net's classes are not whole numbers from 0. Number them 0, 1, 2, ...")
    return max(int(y.max()) + 1, 2)
