"""Two towers as ONNX: the score of a pair."""

from __future__ import annotations

from typing import Any

from mainspring.models.adapters.onnx_columns import probes_of, write_columns
from mainspring.models.adapters.onnx_graph import Graph
from mainspring.models.adapters.onnx_net import TOLERANCE, traced
from mainspring.models.adapters.torch_runtime import functional, nn, torch
from mainspring.models.adapters.torch_towers import TwoTowerPredictor
from mainspring.models.onnx_file import Description
from mainspring.models.parity import Probes
from mainspring.models.protocol import Floats

__all__ = ["TOLERANCE", "probes", "write", "write_tower"]


def write(towers: TwoTowerPredictor, reference: Floats) -> bytes:
    """Both towers and the product of their vectors."""
    graph, sides = Graph(), (towers.user, towers.item)
    widths = [side.width for side in sides]
    parts = [write_columns(graph, side, towers.names, "x", f"{name}/") for name, side in zip(("user", "item"), sides, strict=True)]
    pair = _Pair(towers.net["user"], towers.net["item"], widths[0], float(towers.shape["temperature"])).eval()
    score = graph.include(traced(pair, torch.zeros(2, sum(widths))), graph.add("Concat", *parts, axis=1))
    about = Description("two towers", towers.names, ("score",), tuple(reference.tolist()))
    return graph.finish(about, score, score, [len(towers.names)])


def write_tower(towers: TwoTowerPredictor, side: str) -> bytes:
    """One tower: the vectors of its own columns."""
    graph, columns = Graph(), {"user": towers.user, "item": towers.item}[side]
    tower = nn.Sequential(towers.net[side], _Unit()).eval()
    vectors = graph.include(traced(tower, torch.zeros(2, columns.width)), write_columns(graph, columns, columns.names, "x"))
    places = tuple(f"place {place} of the vector" for place in range(towers.shape["dim"]))
    about = Description(f"{side} tower", columns.names, places, (None,) * len(columns.names))
    return graph.finish(about, vectors, vectors, [len(columns.names)])


def probes(towers: TwoTowerPredictor) -> Probes:
    """Both sides' knots and codes."""
    user, item = (probes_of(side, towers.names) for side in (towers.user, towers.item))
    return Probes([*user.edges, *item.edges], {**user.categories, **item.categories})


class _Pair(nn.Module):
    def __init__(self, user: Any, item: Any, width: int, temperature: float) -> None:
        super().__init__()
        self.user, self.item, self.width, self.temperature = user, item, width, temperature

    def forward(self, z: Any) -> Any:
        users, items = (functional.normalize(side) for side in (self.user(z[:, : self.width]), self.item(z[:, self.width :])))
        return (users.double() * items.double()).sum(1, keepdim=True) / self.temperature


class _Unit(nn.Module):
    def forward(self, vectors: Any) -> Any:
        return functional.normalize(vectors).double()
