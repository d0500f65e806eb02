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

__all__ = ["TOLERANCE", "probes", "write"]


def write(towers: TwoTowerPredictor, reference: Floats) -> bytes:
    """Both towers and the product of their vectors."""
    graph, sides = Graph(), (towers.user, towers.item)
    widths = [len(side.numbers) + len(side.indicated) + len(side.sizes) for side in sides]
    parts = [write_columns(graph, side, towers.names, "x", f"{name}/") for name, side in zip(("user", "item"), sides, strict=True)]
    pair = _Pair(towers.net["user"], towers.net["item"], widths[0], float(towers.shape["temperature"])).eval()
    score = graph.include(traced(pair, torch.zeros(2, sum(widths))), graph.add("Concat", *parts, axis=1))
    about = Description("two towers", towers.names, ("score",), tuple(reference.tolist()))
    return graph.finish(about, score, score, [len(towers.names)])


def probes(towers: TwoTowerPredictor) -> Probes:
    """Both sides' knots and codes."""
    user, item = (probes_of(side, towers.names) for side in (towers.user, towers.item))
    return Probes([*user.edges, *item.edges], {**user.categories, **item.categories})


class _Pair(nn.Module):
    def __init__(self, user: Any, item: Any, width: int, temperature: float) -> None:
        super().__init__()
        self.user, self.item, self.width, self.temperature = user, item, width, temperature

    def forward(self, z: Any) -> Any:
        users, items = functional.normalize(self.user(z[:, : self.width])), functional.normalize(self.item(z[:, self.width :]))
        return (users.double() * items.double()).sum(1, keepdim=True) / self.temperature
