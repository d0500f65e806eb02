"""A trained model with all it needs to answer: encoder, predictor, offset, calibration, interval, sets. Text and JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mainspring.errors import DeclarationError, RegistryError, ServingError
from mainspring.models.artifacts import Artifacts
from mainspring.models.calibration import Calibration, calibration_from, resampled
from mainspring.models.conformal import HIGH, LOW, ConformalInterval, QuantileInterval
from mainspring.models.encoding import Encoder
from mainspring.models.large_tables import OpenTables
from mainspring.models.learners import load_predictor
from mainspring.models.protocol import Floats, Predictor
from mainspring.models.sets import Bools, PredictionSets, two_columns
from mainspring.models.text_scores import TEXTS, TextScores, from_bytes, to_bytes


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
        return self._scored(self.encoder.transform(columns), self._offsets(columns))

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

    def predict_rows(self, rows: Sequence[Sequence[Any]]) -> list[tuple[float, float | None, float | None] | ServingError]:
        """What `predict_row` gives for each row of feature values, to the bit, or the error that it raises."""
        if len(rows) == 1:
            return [self._row_or_error(rows[0])]
        offsets = [self._offset_or_error(row) for row in rows]
        usable = [row for row, offset in zip(rows, offsets, strict=True) if not isinstance(offset, ServingError)]
        if not usable:
            return [offset for offset in offsets if isinstance(offset, ServingError)]
        given = np.array([offset for offset in offsets if not isinstance(offset, ServingError)])
        score, *bounds = self._scored(self.encoder.transform_rows(usable), given)
        low, high = ([None] * len(usable) if bound is None else bound.tolist() for bound in bounds)
        answers = iter(zip(score.tolist(), low, high, strict=True))
        return [offset if isinstance(offset, ServingError) else next(answers) for offset in offsets]

    def predict_columns(
        self, columns: Mapping[str, npt.NDArray[Any]]
    ) -> list[tuple[float, float | None, float | None] | ServingError] | None:
        """What `predict_rows` gives, to the bit, for rows that are there as columns of shape ``(n,)``.

        None where it has to see the rows: of one row, of texts, or where an offset is null.
        """
        offsets = np.zeros(1) if self.offset is None else np.asarray(columns[self.offset], dtype=np.float64)
        if self.encoder.texts or len(columns[self.encoder.names[0]]) == 1 or np.isnan(offsets).any():
            return None
        score, *bounds = self._scored(self.encoder.transform(columns), offsets)
        low, high = ([None] * len(score) if bound is None else bound.tolist() for bound in bounds)
        return list(zip(score.tolist(), low, high, strict=True))

    def predict_set_row(self, values: Sequence[Any]) -> tuple[int, ...]:
        """The classes that may be the true one of a row of feature values; errors as in `predict_sets`."""
        probability = self._corrected(self.predictor.predict_row(self.encoder.transform_row(values)))
        inside = self._sets().apply(two_columns(probability if self.predictor.outputs == 1 else probability[None, :]))
        return tuple(np.flatnonzero(inside[0]).tolist())

    def contributions(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats:
        """What each feature adds to each row's score before the link, as in `reasons`: ``(n, d)``, or ``(n, outputs, d)``."""
        effects = self.encoder.by_feature(self.predictor.contributions(self.encoder.transform(columns))[..., :-1])
        if self.offset is not None:
            effects[:, self.encoder.names.index(self.offset)] += self._offsets(columns) - self.offset_mean
        return effects

    def reasons(self, values: Sequence[Any], most: int) -> list[tuple[str, float]]:
        """The ``most`` features, and words of free text, with the largest effect on this row's score before the link.

        Effects are those of `Predictor.contributions`; of several classes they are on the most probable one. The offset feature's
        effect is its distance from the training mean plus what the predictor makes of it. A word of the feature ``body`` is called
        ``body: word``: a text's effect is shared among the words that moved its score that way, in proportion. All effects add up to
        the score less the mean score.
        """
        x = self.encoder.transform_row(values)
        effects = self.predictor.contributions(x[None, :])[0]
        if self.predictor.outputs > 1:
            effects = effects[int(self.predictor.predict_row(x).argmax())]
        place = 0
        found: dict[str, float] = {}
        for name, value in zip(self.encoder.names, values, strict=True):
            width = len(self.encoder.spread(name))
            part = effects[place : place + width]
            place += width
            if name in self.encoder.texts:
                found |= _shared(name, part, self.encoder.texts[name].effects(value))
            else:
                found[name] = float(part[0])
        if self.offset is not None:
            found[self.offset] += self._offset(values) - self.offset_mean
        return sorted(found.items(), key=lambda item: -abs(item[1]))[:most]

    def to_artifacts(self) -> dict[str, bytes]:
        """The model as files: those of the predictor, everything else as JSON in ``model.json``."""
        rest = {
            "kind": self.kind,
            "settings": dict(self.settings),
            "encoder": self.encoder.to_dict(),
            "texts": list(self.encoder.texts),
            "offset": self.offset,
            "offset_mean": self.offset_mean,
            "interval": None if self.interval is None else self.interval.to_dict(),
            "kept": self.kept,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "sets": None if self.sets is None else self.sets.to_dict(),
        }
        texts = {TEXTS: to_bytes(self.encoder.texts)} if self.encoder.texts else {}
        bounds = self.interval.to_artifacts() if isinstance(self.interval, QuantileInterval) else {}
        return {**self.predictor.to_artifacts(), **bounds, **texts, "model.json": json.dumps(rest, sort_keys=True).encode()}

    @classmethod
    def from_artifacts(cls, artifacts: Mapping[str, bytes], tables: OpenTables | None = None) -> TabularModel:
        """The model that `to_artifacts` wrote; with ``tables``, large tables of nets are looked up there and their files not read.

        Raises:
            RegistryError: the artifacts are not those of a model.
            StorageError: what holds its tables cannot be reached.
        """
        rest = json.loads(artifacts["model.json"])
        encoder = Encoder.from_dict(rest["encoder"], _texts(rest.get("texts", []), artifacts))
        kind, settings, names = rest["kind"], rest["settings"], encoder.columns
        interval: ConformalInterval | QuantileInterval | None = None
        if rest["interval"] is not None and "below" in rest["interval"]:
            low, high = (load_predictor(kind, settings, _part(artifacts, prefix), names, tables) for prefix in (LOW, HIGH))
            interval = QuantileInterval(low, high, **rest["interval"])
        elif rest["interval"] is not None:
            interval = ConformalInterval.from_dict(rest["interval"])
        calibration = None if rest["calibration"] is None else calibration_from(rest["calibration"])
        sets = None if rest.get("sets") is None else PredictionSets.from_dict(rest["sets"])
        predictor = load_predictor(kind, settings, artifacts, names, tables)
        return cls(encoder, kind, settings, predictor, rest["offset"], rest["offset_mean"], interval, rest["kept"], calibration, sets)

    def _scored(self, x: Floats, offsets: Floats | float) -> tuple[Floats, Floats | None, Floats | None]:
        score = self._corrected(self.predictor.predict(x)) + offsets
        if self.interval is None:
            return score, None, None
        if isinstance(self.interval, ConformalInterval):
            return score, *self.interval.apply(score)
        low, high = self.interval.apply(x)
        return score, np.minimum(low + offsets, score), np.maximum(high + offsets, score)

    def _corrected(self, predicted: Floats) -> Floats:
        """The predictor's word as it is among all rows, calibrated."""
        whole = predicted if self.kept == 1 else resampled(predicted, self.kept)
        return whole if self.calibration is None else self.calibration.apply(whole)

    def _sets(self) -> PredictionSets:
        if self.sets is None:
            raise DeclarationError("The model has no prediction sets. Declare them: sets=0.9, and train again.")
        return self.sets

    def _row_or_error(self, values: Sequence[Any]) -> tuple[float, float | None, float | None] | ServingError:
        try:
            return self.predict_row(values)
        except ServingError as error:
            return error

    def _offset_or_error(self, values: Sequence[Any]) -> float | ServingError:
        try:
            return self._offset(values)
        except ServingError as error:
            return error

    def _offset(self, values: Sequence[Any]) -> float:
        if self.offset is None:
            return 0.0
        value = values[self.encoder.names.index(self.offset)]
        if value is None and self.offset in self.encoder.medians:
            raise ServingError(f"feature '{self.offset}' is null, and the model corrects it; it never was null in training")
        return 0.0 if value is None else float(value)

    def _offsets(self, columns: Mapping[str, npt.NDArray[Any]]) -> Floats | float:
        return 0.0 if self.offset is None else offset_of(columns[self.offset], self.encoder.medians.get(self.offset, 0.0))


def _part(artifacts: Mapping[str, bytes], prefix: str) -> Mapping[str, bytes]:
    names = [name.removeprefix(prefix) for name in artifacts if name.startswith(prefix)]
    return Artifacts(names, lambda name: artifacts[prefix + name])


def offset_of(column: npt.NDArray[Any], null: float = 0.0) -> Floats:
    """The offset column as float64 of the same shape, ``null`` where it is null."""
    return np.nan_to_num(np.asarray(column, dtype=np.float64), nan=null)


def _texts(names: Sequence[str], artifacts: Mapping[str, bytes]) -> Mapping[str, TextScores]:
    """The scores of a model's texts.

    Raises:
        RegistryError: they are missing, damaged, or another model's.
    """
    texts = from_bytes(artifacts.get(TEXTS, b"")) if names else {}
    if list(texts) != list(names):
        raise RegistryError(f"{TEXTS}: it scores {', '.join(texts)}, the model reads {', '.join(names)}. It belongs to another model.")
    return texts


def _shared(name: str, effects: Floats, words: Mapping[str, Floats]) -> dict[str, float]:
    """A text's effects, one a score, on its words; what no word moved that way stays with the text."""
    found = dict.fromkeys([f"{name}: {word}" for word in words], 0.0)
    rest = 0.0
    for output, effect in enumerate(effects.tolist()):
        moved = {word: max(0.0, float(part[output]) if effect > 0 else -float(part[output])) for word, part in words.items()}
        whole = sum(moved.values())
        rest += effect if whole == 0 else 0.0
        for word, part in moved.items():
            found[f"{name}: {word}"] += effect * part / whole if whole > 0 else 0.0
    return {**{word: effect for word, effect in found.items() if effect != 0}, **({name: rest} if rest else {})}
