"""A trained model with all it needs to answer: encoder, trees, offset, interval. Stored as text and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mainspring.errors import ServingError
from mainspring.models.adapters.lightgbm import Booster
from mainspring.models.conformal import ConformalInterval
from mainspring.models.encoding import Encoder

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TabularModel:
    """Trees over encoded features, added to an offset feature where one is declared.

    A null offset is 0 if there were such rows in training. If there were none, the trees know no answer without it: a row is refused
    so that something else can answer; in a batch the training median stands in.
    ``offset`` is the offset feature's name and ``offset_mean`` its training mean, the zero point of its effect.
    """

    ARTIFACTS: ClassVar[tuple[str, ...]] = ("model.txt", "model.json")

    encoder: Encoder
    booster: Booster
    offset: str | None
    offset_mean: float
    interval: ConformalInterval | None

    def predict(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """Scores of shape ``(n,)`` for feature columns of shape ``(n,)`` each."""
        return self.booster.predict(self.encoder.transform(columns)) + self._offsets(columns)

    def predict_row(self, values: Sequence[Any]) -> tuple[float, float | None, float | None]:
        """Score and interval of one row of feature values in the encoder's order, None for null.

        Raises:
            ServingError: the offset is null and never was in training.
        """
        score = self.booster.predict_row(self.encoder.transform_row(values)) + self._offset(values)
        low, high = (None, None) if self.interval is None else self.interval.apply_one(score)
        return score, low, high

    def reasons(self, values: Sequence[Any], most: int) -> list[tuple[str, float]]:
        """The ``most`` features with the largest effect on this row's score: exact TreeSHAP values, in the label's unit.

        The offset feature's effect is its distance from the training mean plus what the trees make of it. Effects of all
        features add up to the score less the mean score. Source: Lundberg et al., "Consistent individualized feature
        attribution for tree ensembles", 2018.
        """
        effects = self.booster.contributions(self.encoder.transform_row(values)[None, :])[0, :-1]
        names = list(self.encoder.names)
        if self.offset is not None:
            effects[names.index(self.offset)] += self._offset(values) - self.offset_mean
        order = np.argsort(-np.abs(effects))[:most]
        return [(names[i], float(effects[i])) for i in order]

    def to_artifacts(self) -> dict[str, bytes]:
        """The model as files: the trees as LightGBM's text, everything else as JSON."""
        rest = {
            "encoder": self.encoder.to_dict(),
            "offset": self.offset,
            "offset_mean": self.offset_mean,
            "interval": None if self.interval is None else self.interval.to_dict(),
        }
        return {"model.txt": self.booster.to_text().encode(), "model.json": json.dumps(rest, sort_keys=True).encode()}

    @classmethod
    def from_artifacts(cls, artifacts: Mapping[str, bytes]) -> TabularModel:
        """The model that `to_artifacts` wrote."""
        rest = json.loads(artifacts["model.json"])
        encoder = Encoder.from_dict(rest["encoder"])
        interval = None if rest["interval"] is None else ConformalInterval.from_dict(rest["interval"])
        booster = Booster.from_text(artifacts["model.txt"].decode(), encoder.names)
        return cls(encoder, booster, rest["offset"], rest["offset_mean"], interval)

    def _offset(self, values: Sequence[Any]) -> float:
        if self.offset is None:
            return 0.0
        value = values[self.encoder.names.index(self.offset)]
        if value is None and self.offset in self.encoder.medians:
            raise ServingError(f"feature '{self.offset}' is null, and the model corrects it; it never was null in training")
        return 0.0 if value is None else float(value)

    def _offsets(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats | float:
        return 0.0 if self.offset is None else offset_of(columns[self.offset], self.encoder.medians.get(self.offset, 0.0))


def offset_of(column: npt.NDArray[Any], null: float = 0.0) -> Floats:
    """The offset column as float64 of the same shape, ``null`` where it is null."""
    return np.nan_to_num(np.asarray(column, dtype=np.float64), nan=null)
