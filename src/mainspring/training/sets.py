"""Training sets on disk: columns of stretches of questions, each a file named by all that its values follow from, and sets of them.

A set is a folder with the rows that it takes from each stretch, their labels, and a manifest; it appears whole or not at all.
Sets share the files of columns that they have in common.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.columns import Array, from_arrow
from mainspring.errors import StorageError
from mainspring.schema import Type
from mainspring.storage.durable import locked, make_directory, replacing, sync_directory

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Stretch:
    """Questions with ``start <= as_of < end``; ``files`` names the file of each column, ``rows`` how many of them the set takes."""

    start: int
    end: int
    rows: int
    files: Mapping[str, str]


class Lazy(Mapping[str, Array]):
    """Columns by name, each read when it is first asked for."""

    def __init__(self, names: Sequence[str], load: Callable[[str], Array]) -> None:
        self._names = tuple(names)
        self._load = load
        self._held: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._held:
            if name not in self._names:
                raise KeyError(name)
            self._held[name] = self._load(name)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Sets:
    """The training sets in a folder. All of it is derived: remove it, and it is built again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def addresses(self) -> list[str]:
        """The addresses of the complete sets, the newest last."""
        found = [folder for folder in (self.path / "sets").glob("*") if folder.suffix != ".tmp" and (folder / _MANIFEST).is_file()]
        return [folder.name for folder in sorted(found, key=lambda folder: folder.stat().st_mtime_ns)]

    def read(self, address: str) -> tuple[dict[str, Any], list[Stretch]]:
        """Manifest and stretches of a complete set.

        Raises:
            StorageError: the manifest is damaged.
        """
        file = self.path / "sets" / address / _MANIFEST
        try:
            body = json.loads(file.read_text())
            return body["manifest"], [Stretch(**one) for one in body["stretches"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"Training set {file}: cannot be read ({error}). Remove {self.path}: it is built again.") from error

    def write(self, address: str, manifest: Mapping[str, Any], stretches: Sequence[Stretch], rows: Callable[[int], pa.Table]) -> None:
        """Add a set; ``rows(i)`` gives what it takes of stretch ``i``: columns ``row``, ``as_of``, ``label``, ``label_known_at``."""
        folder = self.path / "sets" / address
        draft = folder.with_suffix(".tmp")
        make_directory(folder.parent)
        with locked(self.path / "lock"):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            for number in range(len(stretches)):
                _write(draft / f"{number:06d}.arrow", rows(number))
            body = {"manifest": manifest, "stretches": [_plain(one) for one in stretches]}
            with replacing(draft / _MANIFEST) as file:
                file.write(json.dumps(body).encode())
            if not folder.exists():
                os.rename(draft, folder)
            sync_directory(folder.parent)

    def holding(self, columns: Sequence[str], value: Any) -> int:
        """The number of rows, over all complete sets, that have ``value`` in one of ``columns``."""
        found = 0
        for address in self.addresses():
            _, stretches = self.read(address)
            for stretch, taken in zip(stretches, self.rows(address, stretches), strict=True):
                hit = np.zeros(len(taken), dtype=np.bool_)
                for name in columns:
                    values = self.column(stretch.files[name]).take(taken.column("row"))
                    hit |= pc.equal(values, pa.scalar(value, values.type)).fill_null(False).to_numpy()
                found += int(hit.sum())
        return found

    def clear(self) -> None:
        """Remove every set; who has one open keeps what is mapped."""
        if self.path.exists():
            with locked(self.path / "lock"):
                for part in ("sets", "columns"):
                    shutil.rmtree(self.path / part, ignore_errors=True)

    def rows(self, address: str, stretches: Sequence[Stretch]) -> list[pa.Table]:
        """What a set takes of each stretch, as `write` was given it, mapped into memory."""
        return [_read(self.path / "sets" / address / f"{number:06d}.arrow") for number in range(len(stretches))]

    def has(self, column: str) -> bool:
        """Whether the file of a column is there."""
        return self._column(column).is_file()

    def column(self, column: str) -> pa.ChunkedArray:
        """The values in the file of a column, mapped into memory."""
        return _read(self._column(column)).column(0)

    def keep(self, column: str, values: pa.Array | pa.ChunkedArray) -> None:
        """Write the file of a column."""
        make_directory(self._column(column).parent)
        _write(self._column(column), pa.table({"values": values}))

    def load(self, stretches: Sequence[Stretch], rows: Sequence[pa.Table], types: Mapping[str, Type]) -> Lazy:
        """The columns of a set, in order of its rows; only those that are read come into memory."""

        def read(name: str) -> Array:
            parts = [self._part(stretch.files[name], taken, types[name]) for stretch, taken in zip(stretches, rows, strict=True)]
            return parts[0] if len(parts) == 1 else np.concatenate([part.astype(_common(parts), copy=False) for part in parts])

        return Lazy(list(types), read)

    def _part(self, file: str, taken: pa.Table, type_: Type) -> Array:
        values = self.column(file)
        if len(taken) < len(values):
            values = values.take(taken.column("row"))
        return from_arrow(values, type_)

    def _column(self, column: str) -> Path:
        return self.path / "columns" / column[:2] / f"{column}.arrow"


def address_of(inputs: Any) -> str:
    """The first 32 hex digits of the SHA-256 of ``inputs`` as canonical JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _common(parts: Sequence[Array]) -> Any:
    return object if any(part.dtype == object for part in parts) else parts[0].dtype


def _plain(stretch: Stretch) -> dict[str, Any]:
    return {"start": stretch.start, "end": stretch.end, "rows": stretch.rows, "files": dict(stretch.files)}


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _read(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"Training set, {path}: cannot be read ({error}). Remove the folder of the sets: they are built again."
        ) from error
