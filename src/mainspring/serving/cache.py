"""Scores remembered by what they follow from: the version and the values that it reads. Nothing in it can be out of date, only old."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mainspring.errors import ServingError
from mainspring.serving.features import FeatureRow
from mainspring.serving.versions import LoadedVersion, Scores
from mainspring.storage.prediction_rows import encoder


class ScoreCache:
    """Remembers up to ``rows`` scores, the ones used last, each for ``age_us`` microseconds from when it was made.

    A version loads only for the features that it was trained with, so its id stands for them; a value is the same only bit by bit: 0.0 is
    not -0.0, 1 is not 1.0. Errors are not remembered. Rows that are alike in one call are scored once. Safe to use from several threads.
    """

    def __init__(self, age_us: int, rows: int, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.hits = self.misses = 0
        self._age_ns, self._rows, self._now = age_us * 1_000, rows, monotonic_ns
        self._encode = encoder().encode
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[int, Scores]] = OrderedDict()

    def predict(self, version: LoadedVersion, rows: Sequence[FeatureRow]) -> list[Scores | ServingError]:
        """What `LoadedVersion.predict` gives, to the bit."""
        prefix, encode = version.id.encode() + b"\0", self._encode
        keys = [prefix + encode(version.inputs(row.values)) for row in rows]
        found: dict[bytes, Scores | ServingError] = self._find(keys)
        missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
        with self._lock:
            self.hits += len(rows) - len(missing)
            self.misses += len(missing)
        if missing:
            scored = dict(zip(missing, version.predict(list(missing.values())), strict=True))
            self._keep({key: scores for key, scores in scored.items() if not isinstance(scores, ServingError)})
            found |= scored
        return [found[key] for key in keys]

    def _find(self, keys: Sequence[bytes]) -> dict[bytes, Scores | ServingError]:
        found: dict[bytes, Scores | ServingError] = {}
        now = self._now()
        with self._lock:
            for key in keys:
                known = self._known.get(key)
                if known is not None and now < known[0]:
                    self._known.move_to_end(key)
                    found[key] = known[1]
        return found

    def _keep(self, scored: dict[bytes, Scores]) -> None:
        until = self._now() + self._age_ns
        with self._lock:
            for key, scores in scored.items():
                self._known[key] = until, scores
                self._known.move_to_end(key)
            while len(self._known) > self._rows:
                self._known.popitem(last=False)
