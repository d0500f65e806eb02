"""What stands between a tabular net's inputs and its outputs: layers in a row, or wide and deep side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mainspring.models.adapters.nets.columns import LearnedColumns
from mainspring.models.adapters.nets.inputs import Inputs
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import nn


class Body(Protocol):
    """The shape of a tabular net."""

    def layers(self, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> list[Any]:
        """Its layers in order: `Inputs` first, with category vectors of at most ``vector`` numbers; the last gives all tasks' outputs."""
        ...


@dataclass(frozen=True, slots=True)
class Mlp:
    """Fully connected layers with SiLU between (smooth, so that integrated gradients converge fast)."""

    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.0

    def layers(self, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> list[Any]:
        """Inputs, hidden layers and the head."""
        inputs = Inputs(columns, vector)
        width = self.hidden[-1] if self.hidden else inputs.deep
        return [inputs, *hidden_layers(inputs.deep, self.hidden, self.dropout), head(width, outputs_of(tasks))]


@dataclass(frozen=True, slots=True)
class WideAndDeep:
    """A linear model with crossed categories beside a fully connected one, trained jointly; their scores add up.

    ``crosses`` are pairs of category columns. Source: Cheng et al., "Wide & deep learning for recommender systems", 2016; there the
    wide part has an optimiser of its own (FTRL), here both share AdamW.
    """

    hidden: tuple[int, ...] = (128, 64)
    crosses: tuple[tuple[str, str], ...] = ()
    dropout: float = 0.0

    def layers(self, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> list[Any]:
        """Inputs with scores of categories and crosses, then both parts as one layer."""
        inputs = Inputs(columns, vector, outputs_of(tasks), self.crosses)
        return [inputs, _Sum(inputs, self.hidden, self.dropout, outputs_of(tasks))]


class _Sum(nn.Module):
    def __init__(self, inputs: Inputs, hidden: tuple[int, ...], dropout: float, outputs: int) -> None:
        super().__init__()
        self.numbers, self.width, self.outputs = inputs.numbers, inputs.deep, outputs
        last = hidden[-1] if hidden else inputs.deep
        self.deep = nn.Sequential(*hidden_layers(inputs.deep, hidden, dropout), head(last, outputs))
        self.wide = head(inputs.numbers, outputs) if inputs.numbers else None

    def forward(self, z: Any) -> Any:
        scores = z[:, self.width :].unflatten(1, (-1, self.outputs)).sum(1) + self.deep(z[:, : self.width])
        return scores if self.wide is None else scores + self.wide(z[:, : self.numbers])


def hidden_layers(width: int, hidden: tuple[int, ...], dropout: float) -> list[Any]:
    """Linear layers, each with its activation and dropout, from ``width`` inputs."""
    layers = []
    for inner in hidden:
        layers += [nn.Linear(width, inner), nn.SiLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = inner
    return layers


def head(width: int, outputs: int) -> Any:
    """A linear layer that starts at 0, where each task's centre is the answer."""
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def outputs_of(tasks: tuple[Task, ...]) -> int:
    """How many numbers all tasks need."""
    return sum(task.outputs for task in tasks)
