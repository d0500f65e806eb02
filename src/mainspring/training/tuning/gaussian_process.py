"""Bayesian search by an exact Gaussian process with expected improvement, for tens to hundreds of trials.

Source: Snoek, Larochelle, Adams, "Practical Bayesian optimization of machine learning algorithms", 2012; kernel Matern 5/2.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LENGTHS = np.array([0.1, 0.2, 0.4, 0.8, 2.0, 8.0])
NOISES = np.array([1e-6, 1e-3, 1e-2, 1e-1, 0.5])
_CANDIDATES, _NEAR, _SWEEPS = 2_000, 500, 2


def propose(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """The place of the unit cube, of shape ``(d,)``, where the most improvement over the largest ``y`` is expected.

    ``x`` of shape ``(n, d)`` are places tried, ``y`` of shape ``(n,)`` what they gave; the largest is sought.
    """
    scaled = (y - y.mean()) / (y.std() or 1.0)
    lengths, noise = _fit(x, scaled)
    around = x[rng.choice(np.argsort(-scaled)[:3], _NEAR)] + rng.normal(0, 0.08, (_NEAR, x.shape[1]))
    candidates = np.vstack([rng.random((_CANDIDATES, x.shape[1])), around.clip(0, 1)])
    mean, deviation = _posterior(x, scaled, candidates, lengths, noise)
    best = _posterior(x, scaled, x, lengths, noise)[0].max()
    return np.asarray(candidates[np.argmax(_improvement(mean - best, deviation))])


def _fit(x: Floats, y: Floats) -> tuple[Floats, float]:
    """A length per dimension and the noise of the largest marginal likelihood, one after another from a fixed grid."""
    lengths, noise = np.full(x.shape[1], 0.4), 1e-2
    for _ in range(_SWEEPS):
        for i in range(len(lengths)):
            options = [np.where(np.arange(len(lengths)) == i, one, lengths) for one in LENGTHS]
            lengths = max(options, key=lambda one: _likelihood(x, y, one, noise))
        noise = max(NOISES, key=lambda one: _likelihood(x, y, lengths, one))
    return lengths, float(noise)


def _likelihood(x: Floats, y: Floats, lengths: Floats, noise: float) -> float:
    factor = np.linalg.cholesky(_kernel(x, x, lengths) + (noise + 1e-9) * np.eye(len(x)))
    half = np.linalg.solve(factor, y)
    return float(-0.5 * half @ half - np.log(np.diag(factor)).sum())


def _posterior(x: Floats, y: Floats, at: Floats, lengths: Floats, noise: float) -> tuple[Floats, Floats]:
    factor = np.linalg.cholesky(_kernel(x, x, lengths) + (noise + 1e-9) * np.eye(len(x)))
    across = np.linalg.solve(factor, _kernel(x, at, lengths))
    return across.T @ np.linalg.solve(factor, y), np.sqrt(np.maximum(1.0 - (across**2).sum(axis=0), 1e-12))


def _kernel(a: Floats, b: Floats, lengths: Floats) -> Floats:
    distance = np.sqrt(5 * (((a[:, None, :] - b[None, :, :]) / lengths) ** 2).sum(axis=2))
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def _improvement(gain: Floats, deviation: Floats) -> Floats:
    z = gain / deviation
    below = 0.5 * (1 + np.array([math.erf(one / math.sqrt(2)) for one in z]))
    return gain * below + deviation * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
