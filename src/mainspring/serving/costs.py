"""What batches cost, learnt as they run."""

from __future__ import annotations

import math

QUICK_NS = 1_000_000
"""An answer that is expected to take longer than this alone must not hold up the event loop."""
MOST = 256
_MEMORY = 0.98
_SHARE = 0.1
_FAR = 4.0


class CostCurve:
    """What a batch of ``n`` is expected to take: a line through what batches took, newer ones counting more.

    Least squares over exponentially forgotten batches, with one batch of nothing in no time added, so that the line goes through the
    origin as long as all batches were alike. A batch that took far longer than expected counts as `_FAR` times that, unless the one
    before it did too: a process that the machine left waiting for a moment has not become slow.
    """

    def __init__(self) -> None:
        self._weight, self._n, self._ns, self._nn, self._nt = 1.0, 0.0, 0.0, 0.0, 0.0
        self._start = self._slope = 0.0
        self._far = False

    @property
    def slow(self) -> bool:
        """Whether one alone may hold up others: as long as nothing is known it may."""
        return self._n == 0 or self.expect(1) > QUICK_NS

    def learn(self, n: int, ns: float) -> None:
        """A batch of ``n`` took ``ns`` nanoseconds."""
        most = _FAR * self.expect(n) if self._n else math.inf
        far, self._far = self._far, ns > most
        if self._far and not far:
            ns = most
        keep = _MEMORY
        self._weight = 1.0 + (self._weight - 1.0) * keep + 1.0
        self._n, self._ns = self._n * keep + n, self._ns * keep + ns
        self._nn, self._nt = self._nn * keep + n * n, self._nt * keep + n * ns
        spread = self._nn - self._n * self._n / self._weight
        slope = (self._nt - self._n * self._ns / self._weight) / spread
        self._slope = max(slope, 0.0)
        self._start = max((self._ns - self._slope * self._n) / self._weight, 0.0)

    @property
    def worth(self) -> int:
        """The batch beyond which more rows save no more than a tenth of their cost, and only make the first ones wait."""
        return math.ceil(min(MOST, max(1.0, self._start / max(_SHARE * self._slope, 1e-9)))) if self._n else 1

    def expect(self, n: int) -> float:
        """Nanoseconds that a batch of ``n`` is expected to take."""
        return self._start + self._slope * n
