"""Large tables of nets: cut into stripes when they are stored, and fetched row by row where shards hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mainspring.errors import ExportError, StorageError
from mainspring.models.adapters.nets.inputs import Inputs
from mainspring.models.adapters.nets.runtime import nn, torch
from mainspring.models.large_tables import LargeTable, Lookup, Numbers, Vectors, stripe_file

LARGE_BYTES = 4 << 20
"""From so many bytes on a table is stored in stripes."""
FEWEST_STRIPES = 32
STRIPE_BYTES = 16 << 20


class FetchedTable(nn.Module):
    """Stands where a net has a table that shards hold: of its rows it has those that were fetched for the batch."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name, self.embedding_dim = name, width
        self.register_buffer("held", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("vectors", torch.zeros(0, width), persistent=False)

    def hold(self, rows: Numbers, vectors: Vectors) -> None:
        """Have these rows, which rise, and no others."""
        self.held, self.vectors = torch.from_numpy(rows), torch.from_numpy(vectors)

    def forward(self, rows: Any) -> Any:
        """The vectors of rows that it has; an error where it has not all of them."""
        if torch.onnx.is_in_onnx_export():
            raise _not_here(self.name)
        places = torch.searchsorted(self.held, rows.contiguous()).clamp(max=len(self.held) - 1)
        if not torch.equal(self.held[places], rows):
            raise StorageError(f"The table '{self.name}' is held by shards, and not all rows were fetched. Ask the model, not its net.")
        return self.vectors[places]


def _not_here(table: str) -> ExportError:
    return ExportError(f"The table '{table}' is held by shards. Store and export a model that was loaded whole.")


def fetch(tables: Lookup, sides: Sequence[tuple[Inputs, Any]]) -> None:
    """Bring what the tables of some inputs need for their rows, all of it in one question; and row 0, which fills up blocks."""
    places = [(table, rows) for inputs, x in sides for table, rows in inputs.read(x) if isinstance(table, FetchedTable)]
    wanted = {table.name: np.unique(np.append(rows.numpy(), 0)) for table, rows in places}
    found = tables.rows(wanted)
    for table, _ in places:
        table.hold(wanted[table.name], found[table.name])


def large_tables(net: Any) -> Iterator[tuple[LargeTable, dict[str, bytes]]]:
    """The large tables of a net, each with its stripes as files.

    Raises:
        ExportError: the net has not got them itself.
    """
    for name, module in net.named_modules():
        if isinstance(module, FetchedTable):
            raise _not_here(name)
        if isinstance(module, nn.Embedding) and module.weight.nbytes >= LARGE_BYTES:
            weight = module.weight.detach().numpy()
            count = max(FEWEST_STRIPES, -(-weight.nbytes // STRIPE_BYTES))
            stripes = [np.ascontiguousarray(weight[stripe::count], dtype="<f4").tobytes() for stripe in range(count)]
            rows, width = weight.shape
            table = LargeTable(name, rows, width, tuple(hashlib.sha256(data).hexdigest() for data in stripes))
            yield table, {stripe_file(name, number): data for number, data in enumerate(stripes)}


def fill(net: Any, table: LargeTable, artifacts: Mapping[str, bytes]) -> None:
    """Put a table into the net, a stripe at a time.

    Raises:
        KeyError: a stripe is not there.
        ValueError: its bytes are not those that were stored, or the net has no such table.
    """
    weight = net.get_submodule(table.name).weight
    if tuple(weight.shape) != (table.rows, table.width):
        raise ValueError(f"table '{table.name}' has the shape {tuple(weight.shape)}, not {(table.rows, table.width)}")
    for stripe, digest in enumerate(table.stripes):
        data = artifacts[stripe_file(table.name, stripe)]
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{stripe_file(table.name, stripe)} was altered")
        with torch.no_grad():
            weight[stripe :: len(table.stripes)] = torch.from_numpy(table.vectors(stripe, data).copy())


def leave_out(net: Any, tables: Sequence[LargeTable]) -> None:
    """Put a `FetchedTable` in the place of each of these."""
    for table in tables:
        parent, _, name = table.name.rpartition(".")
        setattr(net.get_submodule(parent), name, FetchedTable(table.name, table.width))
