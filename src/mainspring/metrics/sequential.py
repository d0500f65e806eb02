"""Asymptotic confidence sequences of a mean: intervals that hold at every look together, however often one looks.

Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Annals of Statistics 52 (2024), arXiv:2103.06476: Robbins' Gaussian mixture boundary with the running variance.
They are asymptotic: do not look before some hundred rows, or much later where rare events carry the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of the values so far.

    Source: Welford, Technometrics 4, 1962; merged by Chan, Golub, LeVeque, 1979.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """The moments of an array of values."""
        if not values.size:
            return cls()
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()))

    def add(self, value: float) -> Moments:
        """The moments with one more value."""
        n = self.n + 1
        mean = self.mean + (value - self.mean) / n
        return Moments(n, mean, self.squares + (value - self.mean) * (value - mean))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of values together."""
        n = self.n + other.n
        if n == 0:
            return self
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart * apart * self.n * other.n / n
        return Moments(n, self.mean + apart * other.n / n, squares)

    @property
    def variance(self) -> float:
        """Mean squared deviation, unbiased (divided by ``n - 1``); 0 below two values."""
        return self.squares / (self.n - 1) if self.n > 1 else 0.0


def confidence_sequence(n: int, mean: float, variance: float, *, alpha: float, tune_at: int) -> tuple[float, float]:
    """Interval of the true mean after ``n`` values; it fails at any look ever with probability ``alpha`` at most.

    It is narrowest, for its kind, at ``tune_at`` values. Below two values it is infinite.
    """
    tuned = _tuned(n, alpha, tune_at)
    half = _half_width(n, variance, tuned, math.log(math.sqrt(tuned + 1) / alpha))
    return mean - half, mean + half


def lower_sequence(n: int, mean: float, variance: float, *, alpha: float, tune_at: int) -> float:
    """Lower bound of the true mean, one-sided: tighter than the lower end of the interval at the same ``alpha``."""
    tuned = _tuned(n, 2 * alpha, tune_at)
    return mean - _half_width(n, variance, tuned, math.log1p(math.sqrt(tuned + 1) / (2 * alpha)))


def upper_sequence(n: int, mean: float, variance: float, *, alpha: float, tune_at: int) -> float:
    """Upper bound of the true mean, one-sided."""
    return -lower_sequence(n, -mean, variance, alpha=alpha, tune_at=tune_at)


def _tuned(n: int, alpha: float, tune_at: int) -> float:
    """``n * rho**2`` for the rho that is best at ``tune_at`` values."""
    if not 0 < alpha < 1 or tune_at < 1:
        raise ValueError(f"alpha {alpha} must be between 0 and 1 (below 0.5 one-sided) and tune_at {tune_at} at least 1")
    twice = -2 * math.log(alpha)
    return n * (twice + math.log1p(twice)) / tune_at


def _half_width(n: int, variance: float, tuned: float, log_term: float) -> float:
    return math.sqrt(variance * 2 * (tuned + 1) / (n * tuned) * log_term) if n > 1 else math.inf
