"""Shapley values of any model, by sampling orders of its columns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mainspring.models.protocol import Floats

_ORDERS = 16


def sampled(predict: Callable[[Floats], Floats], x: Floats, reference: Floats, *, orders: int = _ORDERS, seed: int = 0) -> Floats:
    """What each column moves the prediction by when it comes after others in a random order, on average.

    A column that has not come yet has its value in ``reference`` of shape ``(d,)``. Each order is used forwards and backwards. The
    values of a row add up to its prediction; the last of them is that of the reference. Shape ``(n, d + 1)``, or
    ``(n, outputs, d + 1)``.
    Sources: Strumbelj and Kononenko, "Explaining prediction models and individual predictions with feature contributions", 2014;
    pairs of orders after Mitchell et al., "Sampling permutations for Shapley value estimation", 2022.
    """
    n, d = x.shape
    base = np.atleast_2d(predict(reference[None, :]).reshape(1, -1))[0]
    values = np.zeros((n, len(base), d + 1))
    rng = np.random.default_rng(seed)
    for _ in range(orders):
        order = rng.permutation(d)
        for turn in (order, order[::-1]):
            row, before = np.tile(reference, (n, 1)), np.tile(base, (n, 1))
            for column in turn.tolist():
                row[:, column] = x[:, column]
                after = predict(row).reshape(n, -1)
                values[:, :, column] += (after - before) / (2 * orders)
                before = after
    values[:, :, -1] = base
    return values[:, 0] if len(base) == 1 else values
