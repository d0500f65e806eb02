"""Offline tables: the events of each source as Parquet, derived from the event log; DuckDB reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.errors import StorageError
from mainspring.storage.durable import locked, make_directory, replacing
from mainspring.storage.log import Frame, Log

_PART_ROWS = 200_000
_PART = re.compile(r"(\d{20})-(\d{20})\.parquet")


class Tables:
    """Parquet parts ``<source>/<first offset>-<end offset>.parquet`` of the events before `position`.

    A catch-up writes parts first and the position last, each whole or not at all: parts beyond the position are of a catch-up
    that was killed; they are not shown, and the next one removes them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def position(self) -> int:
        """The number of the first event that is not in the tables yet.

        Raises:
            StorageError: the position file is damaged.
        """
        return self._state()[0]

    def files(self, source: str) -> list[str]:
        """The parts of a source in the order of the log, as ``read_parquet`` takes them; none if it has no events.

        Parts written before and after a change of the source's columns differ: read them with ``union_by_name``.

        Raises:
            StorageError: the position file is damaged, or a part is gone.
        """
        position, written = self._state()
        parts = [str(part) for end, part in self._parts(source) if end <= position]
        if len(parts) < written.get(source, 0):
            raise StorageError(
                f"Tables, {self.path / source}: {written[source]} parts were written, {len(parts)} are there. "
                f"Remove {self.path}: it is rebuilt from the event log."
            )
        return parts

    def catch_up(self, log: Log, until: int | None = None) -> int:
        """Write the events logged since the last catch-up, up to ``until`` or the end, and return the new position.

        At most about 200,000 rows are held in memory. Two at a time take turns; killed at any point, the next one goes on.

        Raises:
            StorageError: the log ends before the position, an event is damaged, or the disk is full.
        """
        try:
            make_directory(self.path)
            with locked(self.path / "lock"):
                position = self.position
                if position > log.end:
                    raise StorageError(
                        f"Tables, {self.path}: hold {position} events, the log {log.place} only {log.end}. "
                        f"Remove {self.path}: it is rebuilt from the event log."
                    )
                self._remove_beyond(position)
                return self._catch_up(log.read(position, until), position)
        except OSError as error:
            raise StorageError(f"Tables, {self.path}: did not catch up ({error}). Free space on the disk or mend it.") from error

    def erase(self, source: str, chosen: Callable[[pa.Table], npt.NDArray[np.bool_]]) -> int:
        """Erase the rows of a source that ``chosen`` names, and return how many; each part is replaced whole or not at all.

        Raises:
            StorageError: a part cannot be read or written.
        """
        import pyarrow.parquet as pq

        gone = 0
        try:
            make_directory(self.path)
            with locked(self.path / "lock"):
                self._remove_beyond(self.position)
                for _, part in self._parts(source):
                    rows = pq.read_table(part, partitioning=None)
                    erased = chosen(rows)
                    if erased.any():
                        gone += int(erased.sum())
                        with replacing(part) as file:
                            pq.write_table(rows.filter(pa.array(~erased)), file, compression="zstd")
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"Tables, {self.path}, source '{source}': rows were not erased ({error}). Erase again.") from error
        return gone

    def _state(self) -> tuple[int, dict[str, int]]:
        """The position, and how many parts of each source were written before it."""
        file = self.path / "position.json"
        try:
            state = json.loads(file.read_text())
            return int(state["position"]), dict(state.get("parts", {}))
        except FileNotFoundError:
            return 0, {}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise StorageError(
                f"Tables, {file}: not a position ({error}). Remove {self.path}: it is rebuilt from the event log."
            ) from error

    def _catch_up(self, frames: Iterable[Frame], position: int) -> int:
        held: dict[str, list[Frame]] = {}
        rows = 0
        for frame in frames:
            held.setdefault(frame.source, []).append(frame)
            rows += frame.batch.num_rows
            position = frame.end
            if rows >= _PART_ROWS:
                self._write(held, position)
                held, rows = {}, 0
        if held:
            self._write(held, position)
        return position

    def _write(self, held: dict[str, list[Frame]], position: int) -> None:
        parts = self._state()[1]
        for source, frames in held.items():
            self._write_part(source, frames)
            parts[source] = parts.get(source, 0) + 1
        with replacing(self.path / "position.json") as file:
            file.write(json.dumps({"position": position, "parts": parts}).encode())

    def _write_part(self, source: str, frames: list[Frame]) -> None:
        import pyarrow.parquet as pq

        make_directory(self.path / source)
        try:
            rows = pa.concat_tables([pa.table(frame.batch) for frame in frames], promote_options="permissive")
        except pa.ArrowException as error:
            raise StorageError(
                f"Tables, source '{source}', events {frames[0].offset} to {frames[-1].end}: a column changed its type ({error}). "
                "Give the changed column a new name."
            ) from error
        with replacing(self.path / source / f"{frames[0].offset:020d}-{frames[-1].end:020d}.parquet") as file:
            pq.write_table(rows, file, compression="zstd")

    def _parts(self, source: str) -> list[tuple[int, Path]]:
        names = sorted(path.name for path in (self.path / source).glob("*.parquet"))
        return [(int(match[2]), self.path / source / match[0]) for match in map(_PART.fullmatch, names) if match]

    def _remove_beyond(self, position: int) -> None:
        for folder in filter(Path.is_dir, self.path.iterdir()):
            for end, part in self._parts(folder.name):
                if end > position:
                    part.unlink()
            for draft in folder.glob("*.tmp"):
                draft.unlink()
