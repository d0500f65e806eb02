"""Shapley values of any model, by sampling orders of its columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mainspring.models.protocol import Floats

_ORDERS = 16
_AT_ONCE = 512


def sampled(predict: Callable[[Floats], Floats], x: Floats, reference: Floats, *, orders: int = _ORDERS, seed: int = 0) -> Floats:
    """What each column moves the prediction by when it comes after others in a random order, on average.

    A column that has not come yet has its value in ``reference`` of shape ``(d,)``. Each order is used forwards and backwards. The
    values of a row add up to its prediction; the last of them is that of the reference. Shape ``(n, d + 1)``, or
    ``(n, outputs, d + 1)``.
    Sources: Strumbelj and Kononenko, "Explaining prediction models and individual predictions with feature contributions", 2014;
    pairs of orders after Mitchell et al., "Sampling permutations for Shapley value estimation", 2022.
    """
    parts = [_sampled(predict, x[start : start + _AT_ONCE], reference, orders, seed) for start in range(0, max(len(x), 1), _AT_ONCE)]
    values = np.concatenate(parts)
    return values[:, 0] if values.shape[1] == 1 else values


def _sampled(predict: Callable[[Floats], Floats], x: Floats, reference: Floats, orders: int, seed: int) -> Floats:
    n, d = x.shape
    base = predict(reference[None, :]).reshape(1, -1)
    values = np.zeros((n, base.shape[1], d + 1))
    rng = np.random.default_rng(seed)
    for _ in range(orders):
        order = rng.permutation(d)
        for turn in (order, order[::-1]):
            come = np.argsort(turn)[None, :] <= np.arange(d)[:, None]
            rows = np.where(come, x[:, None, :], reference).reshape(n * d, d)
            scores = np.concatenate([np.tile(base, (n, 1, 1)), predict(rows).reshape(n, d, -1)], axis=1)
            values[:, :, turn] += np.diff(scores, axis=1).transpose(0, 2, 1) / (2 * orders)
    values[:, :, -1] = base
    return values
