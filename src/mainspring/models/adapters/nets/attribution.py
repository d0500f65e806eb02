"""What each column adds to a net's raw score, by integrated gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.models.adapters.nets.runtime import torch

Floats = npt.NDArray[np.float64]
FIRST_POINTS = 16
MOST_POINTS = 512
TOLERANCE = 1e-5


def integrated_gradients(score: Callable[[Any], Any], z: Any, baseline: Any) -> Floats:
    """The share of each place of ``z`` in ``score(z) - score(baseline)``, shape ``(n, outputs, width)``, in float64.

    The path from ``baseline`` of shape ``(width,)`` to each row of ``z`` of shape ``(n, width)`` is straight; its integral is taken at 16
    Gauss-Legendre points, then twice as many until the shares of every row sum to the difference within 1e-5 of the largest
    difference (or of 1, if that is less), at most 512. Source: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017.
    """
    with torch.inference_mode():
        differences = (score(z) - score(baseline[None, :])).numpy()
    bound = TOLERANCE * max(1.0, float(np.abs(differences).max(initial=0.0)))
    points = FIRST_POINTS
    while True:
        shares = _integral(score, z, baseline, points)
        if points == MOST_POINTS or np.abs(shares.sum(axis=2) - differences).max(initial=0.0) <= bound:
            return shares
        points *= 2


def _integral(score: Callable[[Any], Any], z: Any, baseline: Any, points: int) -> Floats:
    places, weights = np.polynomial.legendre.leggauss(points)
    way, total = z - baseline, 0.0
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        point = (baseline + place * way).requires_grad_()
        raw = score(point)
        gradients = [torch.autograd.grad(raw[:, k].sum(), point, retain_graph=True)[0] for k in range(raw.shape[1])]
        total = total + weight * torch.stack(gradients, dim=1)
    return np.asarray((total * way[:, None, :]).numpy(), dtype=np.float64)
