"""Several labels from one net: what they share, and what each has for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mainspring.models.adapters.nets.bodies import head, hidden_layers
from mainspring.models.adapters.nets.columns import LearnedColumns
from mainspring.models.adapters.nets.inputs import Inputs
from mainspring.models.adapters.nets.objectives import Task
from mainspring.models.adapters.nets.runtime import nn, torch


@dataclass(frozen=True, slots=True)
class SharedBottom:
    """Layers that all tasks share, then a tower for each. Source: Caruana, "Multitask learning", 1997."""

    hidden: tuple[int, ...] = (128,)
    tower: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def layers(self, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> list[Any]:
        """Inputs, the bottom, then all towers as one layer."""
        inputs = Inputs(columns, vector)
        width = self.hidden[-1] if self.hidden else inputs.deep
        return [inputs, *hidden_layers(inputs.deep, self.hidden, self.dropout), _Towers(width, self.tower, tasks)]


@dataclass(frozen=True, slots=True)
class Mmoe:
    """Experts that all tasks share, mixed for each task by a gate that sees the row, then a tower for each.

    Source: Ma et al., "Modeling task relationships in multi-task learning with multi-gate mixture-of-experts", 2018.
    """

    experts: int = 4
    hidden: tuple[int, ...] = (64,)
    tower: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def layers(self, columns: LearnedColumns, vector: int, tasks: tuple[Task, ...]) -> list[Any]:
        """Inputs, then experts, gates and towers as one layer."""
        inputs = Inputs(columns, vector)
        return [inputs, _Mixture(inputs.deep, self, tasks)]


class _Towers(nn.Module):
    def __init__(self, width: int, tower: tuple[int, ...], tasks: tuple[Task, ...]) -> None:
        super().__init__()
        last = tower[-1] if tower else width
        self.towers = nn.ModuleList(nn.Sequential(*hidden_layers(width, tower, 0.0), head(last, task.outputs)) for task in tasks)

    def forward(self, z: Any) -> Any:
        return torch.cat([tower(z) for tower in self.towers], dim=1)


class _Mixture(nn.Module):
    def __init__(self, width: int, body: Mmoe, tasks: tuple[Task, ...]) -> None:
        super().__init__()
        last = body.hidden[-1] if body.hidden else width
        self.experts = nn.ModuleList(nn.Sequential(*hidden_layers(width, body.hidden, body.dropout)) for _ in range(body.experts))
        self.gates = nn.ModuleList(nn.Linear(width, body.experts) for _ in tasks)
        ends = body.tower[-1] if body.tower else last
        self.towers = nn.ModuleList(nn.Sequential(*hidden_layers(last, body.tower, 0.0), head(ends, task.outputs)) for task in tasks)

    def forward(self, z: Any) -> Any:
        experts = torch.stack([expert(z) for expert in self.experts], dim=1)
        mixed = [(gate(z).softmax(1)[:, :, None] * experts).sum(1) for gate in self.gates]
        return torch.cat([tower(one) for tower, one in zip(self.towers, mixed, strict=True)], dim=1)
