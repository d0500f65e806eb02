"""A trained model with all it needs to answer: encoder, predictor, offset, calibration, interval, sets. Text and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError, ServingError
from mainspring.models.calibration import Calibration, calibration_from, resampled
from mainspring.models.conformal import HIGH, LOW, ConformalInterval, QuantileInterval
from mainspring.models.encoding import Encoder
from mainspring.models.learners import load_predictor
from mainspring.models.protocol import Floats, Predictor
from mainspring.models.sets import Bools, PredictionSets, two_columns


@dataclass(frozen=True, slots=True)
class TabularModel:
    """A predictor over encoded features, added to an offset feature where one is declared.

    A null offset is 0 if there were such rows in training. If there were none, the predictor knows no answer without it: a row is
    refused so that something else can answer; in a batch the training median stands in.
    ``offset`` is the offset feature's name and ``offset_mean`` its training mean, the zero point of its effect. ``kind`` and
    ``settings`` name the learner, ``kept`` is the share of negatives that it learned from, ``calibration`` corrects what it says.
    """

    encoder: Encoder
    kind: str
    settings: Mapping[str, Any]
    predictor: Predictor
    offset: str | None = None
    offset_mean: float = 0.0
    interval: ConformalInterval | QuantileInterval | None = None
    kept: float = 1.0
    calibration: Calibration | None = None
    sets: PredictionSets | None = None

    def predict(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """Answers of shape ``(n,)``, or ``(n, outputs)`` of several classes, for feature columns of shape ``(n,)`` each."""
        return self._corrected(self.predictor.predict(self.encoder.transform(columns))) + self._offsets(columns)

    def predict_bounds(self, columns: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, Floats | None, Floats | None]:
        """Answers with the lower and upper ends of their intervals, each of shape ``(n,)``; None where the model has no interval."""
        x, offsets = self.encoder.transform(columns), self._offsets(columns)
        score = self._corrected(self.predictor.predict(x)) + offsets
        if self.interval is None:
            return score, None, None
        if isinstance(self.interval, ConformalInterval):
            return score, *self.interval.apply(score)
        low, high = self.interval.apply(x)
        return score, np.minimum(low + offsets, score), np.maximum(high + offsets, score)

    def predict_sets(self, columns: Mapping[str, npt.NDArray[Any]], rng: np.random.Generator | None = None) -> Bools:
        """Which classes may be the true one, of shape ``(n, classes)``; ``rng`` as in `PredictionSets.apply`.

        Raises:
            DeclarationError: the model was declared without ``sets``.
        """
        return self._sets().apply(two_columns(self.predict(columns)), rng)

    def predict_row(self, values: Sequence[Any]) -> tuple[float, float | None, float | None]:
        """Answer and interval of one row of feature values in the encoder's order, None for null; of a predictor with one output.

        Raises:
            ServingError: the offset is null and never was in training.
        """
        x, offset = self.encoder.transform_row(values), self._offset(values)
        score = float(self._corrected(self.predictor.predict_row(x))[0]) + offset
        if self.interval is None:
            return score, None, None
        if isinstance(self.interval, ConformalInterval):
            return score, *self.interval.apply_one(score)
        low, high = self.interval.apply_one(x)
        return score, min(low + offset, score), max(high + offset, score)

    def predict_set_row(self, values: Sequence[Any]) -> tuple[int, ...]:
        """The classes that may be the true one of a row of feature values; errors as in `predict_sets`."""
        probability = self._corrected(self.predictor.predict_row(self.encoder.transform_row(values)))
        inside = self._sets().apply(two_columns(probability if self.predictor.outputs == 1 else probability[None, :]))
        return tuple(np.flatnonzero(inside[0]).tolist())

    def contributions(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """What each feature adds to each row's score before the link, as in `reasons`: ``(n, d)``, or ``(n, outputs, d)``."""
        effects = self.predictor.contributions(self.encoder.transform(columns))[..., :-1]
        if self.offset is not None:
            effects[:, self.encoder.names.index(self.offset)] += self._offsets(columns) - self.offset_mean
        return effects

    def reasons(self, values: Sequence[Any], most: int) -> list[tuple[str, float]]:
        """The ``most`` features with the largest effect on this row's score before the link, by `Predictor.contributions`.

        The offset feature's effect is its distance from the training mean plus what the predictor makes of it. Effects of all
        features add up to the score less the mean score.
        """
        effects = self.predictor.contributions(self.encoder.transform_row(values)[None, :])[0, :-1]
        names = list(self.encoder.names)
        if self.offset is not None:
            effects[names.index(self.offset)] += self._offset(values) - self.offset_mean
        order = np.argsort(-np.abs(effects))[:most]
        return [(names[i], float(effects[i])) for i in order]

    def to_artifacts(self) -> dict[str, bytes]:
        """The model as files: those of the predictor, everything else as JSON in ``model.json``."""
        rest = {
            "kind": self.kind,
            "settings": dict(self.settings),
            "encoder": self.encoder.to_dict(),
            "offset": self.offset,
            "offset_mean": self.offset_mean,
            "interval": None if self.interval is None else self.interval.to_dict(),
            "kept": self.kept,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "sets": None if self.sets is None else self.sets.to_dict(),
        }
        bounds = self.interval.to_artifacts() if isinstance(self.interval, QuantileInterval) else {}
        return {**self.predictor.to_artifacts(), **bounds, "model.json": json.dumps(rest, sort_keys=True).encode()}

    @classmethod
    def from_artifacts(cls, artifacts: Mapping[str, bytes]) -> TabularModel:
        """The model that `to_artifacts` wrote.

        Raises:
            RegistryError: the artifacts are not those of a model.
        """
        rest = json.loads(artifacts["model.json"])
        encoder = Encoder.from_dict(rest["encoder"])
        kind, settings, names = rest["kind"], rest["settings"], encoder.names
        interval: ConformalInterval | QuantileInterval | None = None
        if rest["interval"] is not None and "below" in rest["interval"]:
            low, high = (load_predictor(kind, settings, _part(artifacts, prefix), names) for prefix in (LOW, HIGH))
            interval = QuantileInterval(low, high, **rest["interval"])
        elif rest["interval"] is not None:
            interval = ConformalInterval.from_dict(rest["interval"])
        calibration = None if rest["calibration"] is None else calibration_from(rest["calibration"])
        sets = None if rest.get("sets") is None else PredictionSets.from_dict(rest["sets"])
        predictor = load_predictor(kind, settings, artifacts, names)
        return cls(encoder, kind, settings, predictor, rest["offset"], rest["offset_mean"], interval, rest["kept"], calibration, sets)

    def _corrected(self, predicted: Floats) -> Floats:
        """The predictor's word as it is among all rows, calibrated."""
        whole = predicted if self.kept == 1 else resampled(predicted, self.kept)
        return whole if self.calibration is None else self.calibration.apply(whole)

    def _sets(self) -> PredictionSets:
        if self.sets is None:
            raise DeclarationError("The model has no prediction sets. Declare them: sets=0.9, and train again.")
        return self.sets

    def _offset(self, values: Sequence[Any]) -> float:
        if self.offset is None:
            return 0.0
        value = values[self.encoder.names.index(self.offset)]
        if value is None and self.offset in self.encoder.medians:
            raise ServingError(f"feature '{self.offset}' is null, and the model corrects it; it never was null in training")
        return 0.0 if value is None else float(value)

    def _offsets(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats | float:
        return 0.0 if self.offset is None else offset_of(columns[self.offset], self.encoder.medians.get(self.offset, 0.0))


def _part(artifacts: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    return {name.removeprefix(prefix): data for name, data in artifacts.items() if name.startswith(prefix)}


def offset_of(column: npt.NDArray[Any], null: float = 0.0) -> Floats:
    """The offset column as float64 of the same shape, ``null`` where it is null."""
    return np.nan_to_num(np.asarray(column, dtype=np.float64), nan=null)
