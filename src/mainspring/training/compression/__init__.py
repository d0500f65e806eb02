"""Compression: a registered model made smaller, measured beside the one it was made from, and let through only within a declared loss."""

from mainspring.models.pruning import Prune
from mainspring.training.compression.compress import Compressed, Source, compress
from mainspring.training.compression.measure import Bound, Figures, Loss, Side, Table, loss_of, side_by_side
from mainspring.training.compression.steps import Distil, Quantize, Step, parse

__all__ = [
    "Bound",
    "Compressed",
    "Distil",
    "Figures",
    "Loss",
    "Prune",
    "Quantize",
    "Side",
    "Source",
    "Step",
    "Table",
    "compress",
    "loss_of",
    "parse",
    "side_by_side",
]
