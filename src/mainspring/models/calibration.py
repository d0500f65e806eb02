"""Scores to probabilities that mean what they say, learned on rows the model was not fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.models.protocol import Floats

_STEPS, _ENOUGH = 50, 1e-10
_EDGE = 1e-12
_WIDEST, _NARROW, _GOLDEN = 3.0, 1e-4, 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic curve over the log odds: ``1 / (1 + exp(-(slope * logit(p) + shift)))``.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, with his targets that keep off 0 and 1.
    """

    slope: float
    shift: float

    @classmethod
    def fit(cls, predicted: Floats, truth: Floats, weight: Floats | None = None) -> Platt:
        """From probabilities and truths (0 or 1), both of shape ``(n,)``, by Newton's method."""
        weights = np.ones(len(truth)) if weight is None else weight
        positive, negative = float(weights[truth > 0].sum()), float(weights[truth <= 0].sum())
        target = np.where(truth > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
        design = np.column_stack([_logit(predicted), np.ones(len(truth))])
        turn = np.zeros(2)
        for _ in range(_STEPS):
            p = _logistic(design @ turn)
            curvature = design.T @ (design * (weights * p * (1 - p))[:, None]) + _EDGE * np.eye(2)
            step = np.linalg.solve(curvature, design.T @ (weights * (target - p)))
            while _loss(design @ (turn + step), target, weights) > _loss(design @ turn, target, weights) and np.abs(step).max() > _ENOUGH:
                step = step / 2
            turn = turn + step
            if float(np.abs(step).max()) < _ENOUGH:
                break
        return cls(float(turn[0]), float(turn[1]))

    def apply(self, predicted: Floats) -> Floats:
        """Calibrated probabilities, of the same shape."""
        return _logistic(self.slope * _logit(predicted) + self.shift)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": "platt", "slope": self.slope, "shift": self.shift}


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The rising curve through ``points`` that is nearest to the truth, straight between them.

    Source: pool adjacent violators, Ayer et al., "An empirical distribution function for sampling with incomplete information",
    1955; for probabilities, Zadrozny and Elkan, 2002.
    """

    points: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def fit(cls, predicted: Floats, truth: Floats, weight: Floats | None = None) -> Isotonic:
        """From probabilities and truths (0 or 1), both of shape ``(n,)``."""
        weights = np.ones(len(truth)) if weight is None else weight
        points, place = np.unique(predicted, return_inverse=True)
        heavy = np.bincount(place, weights)
        blocks: list[list[float]] = []
        for mean, mass in zip((np.bincount(place, weights * truth) / heavy).tolist(), heavy.tolist(), strict=True):
            blocks.append([mean, mass, 1])
            while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
                last, before = blocks.pop(), blocks[-1]
                before[0] = (before[0] * before[1] + last[0] * last[1]) / (before[1] + last[1])
                before[1], before[2] = before[1] + last[1], before[2] + last[2]
        sizes = np.array([size for _, _, size in blocks], dtype=np.int64)
        ends = np.cumsum(sizes)
        edges = np.unique(np.concatenate([ends - sizes, ends - 1]))
        values = np.repeat([mean for mean, _, _ in blocks], sizes)[edges]
        return cls(tuple(points[edges].tolist()), tuple(values.tolist()))

    def apply(self, predicted: Floats) -> Floats:
        """Calibrated probabilities, of the same shape; beyond the first and last point those of these."""
        return np.interp(predicted, self.points, self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": "isotonic", "points": list(self.points), "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Temperature:
    """Probabilities of two or more classes to the power ``sharpness``, brought to sum 1: log odds times one number.

    Source: Guo et al., "On calibration of modern neural networks", 2017, whose temperature is ``1 / sharpness``.
    """

    sharpness: float

    @classmethod
    def fit(cls, predicted: Floats, truth: Floats, weight: Floats | None = None) -> Temperature:
        """From probabilities of shape ``(n,)`` or ``(n, classes)`` and class numbers ``(n,)``: the least log loss, by golden section."""
        weights = np.ones(len(truth)) if weight is None else weight
        shares = np.column_stack([1 - predicted, predicted]) if predicted.ndim == 1 else predicted
        told = truth.astype(np.int64)[:, None]

        def loss(log: float) -> float:
            p = np.take_along_axis(sharpened(shares, np.exp(log)), told, axis=1)[:, 0]
            return float(-(weights * np.log(np.maximum(p, _EDGE))).sum())

        low, high = -_WIDEST, _WIDEST
        while high - low > _NARROW:
            near, far = high - (high - low) * _GOLDEN, low + (high - low) * _GOLDEN
            low, high = (low, far) if loss(near) <= loss(far) else (near, high)
        return cls(float(np.exp((low + high) / 2)))

    def apply(self, predicted: Floats) -> Floats:
        """Calibrated probabilities, of the same shape."""
        if predicted.ndim == 1:
            return _logistic(self.sharpness * _logit(predicted))
        return sharpened(predicted, self.sharpness)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"kind": "temperature", "sharpness": self.sharpness}


Calibration = Platt | Isotonic | Temperature
KINDS: Mapping[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}
"""What a declaration may name."""


def calibration_from(body: Mapping[str, Any]) -> Calibration:
    """What ``to_dict`` wrote."""
    if body["kind"] == "platt":
        return Platt(body["slope"], body["shift"])
    if body["kind"] == "temperature":
        return Temperature(body["sharpness"])
    return Isotonic(tuple(body["points"]), tuple(body["values"]))


def sharpened(shares: Floats, power: float) -> Floats:
    """Probabilities of shape ``(n, classes)`` to a power, brought to sum 1: softer below 1."""
    logs = power * np.log(np.maximum(shares, _EDGE))
    powered = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powered / powered.sum(axis=1, keepdims=True))


def resampled(predicted: Floats, kept: float) -> Floats:
    """Probabilities of a model that learned from a share ``kept`` of the negatives, as they are among all: ``p / (p + (1 - p) / kept)``.

    Source: Dal Pozzolo et al., "Calibrating probability with undersampling for unbalanced classification", 2015.
    """
    return np.asarray(predicted / (predicted + (1 - predicted) / kept))


def _logit(predicted: Floats) -> Floats:
    p = np.clip(predicted, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(p / (1 - p)))


def _logistic(scores: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(scores / 2)))


def _loss(scores: Floats, target: Floats, weights: Floats) -> float:
    return float((weights * (np.logaddexp(0, scores) - target * scores)).sum())
