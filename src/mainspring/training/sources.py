"""What a source's tables hold, as numbers: the same facts give the same digest however they are cut into files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from mainspring.schema import EVENT_TIME, KNOWN_TIME

_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True)
class Digest:
    """Some facts: how many, their rows' 64-bit hashes summed and combined by exclusive or, first and last event time."""

    rows: int = 0
    total: int = 0
    either: int = 0
    first: int | None = None
    last: int | None = None

    def plus(self, other: Digest) -> Digest:
        """The digest of both together."""
        first = min((at for at in (self.first, other.first) if at is not None), default=None)
        last = max((at for at in (self.last, other.last) if at is not None), default=None)
        return Digest(self.rows + other.rows, (self.total + other.total) % _LIMIT, self.either ^ other.either, first, last)

    def minus(self, other: Digest) -> Digest:
        """The digest of the facts here that are not among ``other``, which are all here; without their times."""
        return Digest(self.rows - other.rows, (self.total - other.total) % _LIMIT, self.either ^ other.either)

    def to_list(self) -> list[Any]:
        """What tells it from others, ready for JSON."""
        return [self.rows, f"{self.total:016x}{self.either:016x}"]

    def to_dict(self) -> dict[str, Any]:
        """Rows, content and range, ready for JSON."""
        return {"rows": self.rows, "content": f"{self.total:016x}{self.either:016x}", "first": self.first, "last": self.last}


class Sources:
    """Digests of sources in Parquet files; ``files(source)`` lists the files of a source."""

    def __init__(self, files: Callable[[str], Sequence[str]], *, threads: int = 2) -> None:
        self._files = files
        self._threads = threads

    @property
    def engine(self) -> str:
        """What made the hashes: another version may hash otherwise."""
        return f"duckdb {duckdb.__version__}"

    def digests(self, source: str, cuts: Sequence[int], *, column: str = KNOWN_TIME) -> list[Digest]:
        """For each of the rising ``cuts`` the digest of the facts whose ``column`` lies before it."""
        files = list(self._files(source))
        if not files:
            return [Digest()] * len(cuts)
        part = " + ".join(f"({column} >= {cut})::INT" for cut in cuts)
        sql = f"""
            SELECT {part} AS part, count(*), sum(h % 4294967296), sum(h >> 32), bit_xor(h), min({EVENT_TIME}), max({EVENT_TIME})
            FROM (SELECT *, hash(f) AS h FROM read_parquet({files!r}, union_by_name = true) f WHERE {column} < {cuts[-1]}) GROUP BY part"""
        with duckdb.connect(config={"threads": self._threads}) as connection:
            found = {row[0]: row[1:] for row in connection.execute(sql).fetchall()}
        held, digests = Digest(), []
        for number in range(len(cuts)):
            if number in found:
                rows, low, high, either, first, last = found[number]
                held = held.plus(Digest(rows, (int(low) + (int(high) << 32)) % _LIMIT, int(either), first, last))
            digests.append(held)
        return digests
