"""The packed rows of many keys at once: their heads as one array, the facts of all of them as another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from mainspring.columns import Array
from mainspring.errors import StorageError
from mainspring.feature_store.packing import CHECKSUM, DIVIDED, FORMAT, RowFormat

Longs = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class PackedRows:
    """The first rows of ``n`` keys of one view, None for keys never seen.

    ``heads`` of shape ``(n,)`` has the dtype `RowFormat.head`. ``intact`` says which of them match their checksums; what is in the
    others means nothing, but for keys never seen, whose last fact is null throughout.
    """

    def __init__(self, form: RowFormat, rows: Sequence[bytes | None]) -> None:
        self._form = form
        self._rows = [form.no_head if row is None else row for row in rows]
        lengths = np.array(list(map(len, self._rows)), dtype=np.int64)
        self._starts = np.cumsum(lengths) - lengths
        self._bytes = b"".join((*self._rows, form.no_head))  # the last row may be damaged and shorter than a head
        self.heads = _gathered(self._bytes, self._starts, form.head)
        self._ends = self.heads["texts"].astype(np.int64) + form.head.itemsize
        fits = (self.heads["format"] == FORMAT) & (self._ends + CHECKSUM <= lengths)
        found = [xxh3_64_intdigest(row[:end]) for row, end in zip(self._rows, self._ends.tolist(), strict=True)]
        stored = _gathered(self._bytes, self._starts + np.where(fits, self._ends, 0), np.dtype(">u8"))
        self.intact: Mask = fits & (np.array(found, dtype=np.uint64) == stored)

    def texts(self) -> bytes:
        """The texts of the last facts of all rows, joined; those of a head that is not intact are null."""
        nothing, fixed = self._form.no_texts, self._form.head.itemsize
        if not nothing:
            return b""
        held = zip(self._rows, self._ends.tolist(), self.intact.tolist(), strict=True)
        return b"".join([row[fixed:end] if whole else nothing for row, end, whole in held])

    def whole(self) -> Mask:
        """Which rows match both of their checksums."""
        bodies = (self._ends + CHECKSUM).tolist()
        found = [xxh3_64_intdigest(row[at:]) for row, at in zip(self._rows, bodies, strict=True)]
        whole: Mask = self.intact & (np.array(found, dtype=np.uint64) == self.heads["body"])
        return whole

    def facts(self, whole: Mask, older: Sequence[bytes | None]) -> tuple[Mask, Array, Longs]:
        """The facts of rows that are ``whole``, as records in winning order row by row, and the number of each one's row.

        ``older`` are second rows, None where there is none. Before them comes which rows are left: not those whose second row does not
        match its checksum.
        """
        form, read = self._form, whole.copy()
        seconds, counts = np.zeros((2, len(read)), dtype=np.int64)
        place, held = len(self._bytes), [self._bytes]
        for row in np.flatnonzero(whole & (self.heads["flags"] & DIVIDED > 0)).tolist():
            second = older[row] or b""
            try:
                counts[row] = form.parts(self._rows[row], second).older.facts
            except StorageError:
                read[row] = False
            seconds[row] = place
            place += len(second)
            held.append(second)
        last, rows = self._starts + form.last_at, np.flatnonzero(read)
        begins = np.column_stack((seconds, self._starts + self._ends + CHECKSUM, last))[rows].ravel()
        many = np.column_stack((counts, self.heads["count"].astype(np.int64) - 1, np.ones_like(counts)))[rows]
        runs = many.ravel()
        places = np.repeat(begins - (np.cumsum(runs) - runs) * form.stride, runs) + np.arange(runs.sum()) * form.stride
        return read, _gathered(b"".join(held), places, form.record), np.repeat(rows, many.sum(axis=1))


def _gathered(data: bytes, places: Longs, dtype: np.dtype[np.generic]) -> Array:
    """What lies at some places of bytes, aligned or not, as an array of a dtype."""
    plain = np.dtype((np.void, dtype.itemsize))
    return np.ndarray((len(data) - dtype.itemsize + 1,), plain, data, strides=(1,))[places].view(dtype)
