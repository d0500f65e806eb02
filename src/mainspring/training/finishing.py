"""What a fitted model is given by rows that it was not fitted to: calibration, sets of classes, intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mainspring.models.calibration import KINDS
from mainspring.models.conformal import ConformalInterval, QuantileInterval
from mainspring.models.protocol import Predictor
from mainspring.models.sets import PredictionSets, two_columns
from mainspring.models.tabular import TabularModel
from mainspring.spec import Model
from mainspring.training.examples import Examples, corrected, encoded


def finished(spec: Model, model: TabularModel, held_out: Examples, quantile: Callable[[float], Predictor] | None = None) -> TabularModel:
    """The model with the calibration, sets and interval that ``spec`` declares.

    ``quantile`` fits the predictor of a quantile, where an interval is made of two; without it residuals make the interval.
    """
    if spec.calibration is not None or spec.sets is not None:
        return _of_classes(spec, model, held_out)
    if spec.interval is None:
        return model
    if spec.interval_by == "residuals" or quantile is None:
        return replace(model, interval=ConformalInterval.fit(model.predict(held_out.columns), held_out.label, spec.interval))
    low, high = map(quantile, spec.interval)
    rows = encoded(model.encoder, corrected(spec, held_out))
    return replace(model, interval=QuantileInterval.fit(low, high, rows.x, rows.y, spec.interval))


def _of_classes(spec: Model, model: TabularModel, held_out: Examples) -> TabularModel:
    """With calibration and sets; where both are wanted, each has every other held-out row, so that the sets judge new rows."""
    predicted, label, weight = model.predict(held_out.columns), held_out.label, held_out.weight
    step = 1 if spec.calibration is None or spec.sets is None else 2
    if spec.calibration is not None:
        calibration = KINDS[spec.calibration].fit(predicted[::step], label[::step], None if weight is None else weight[::step])
        model = replace(model, calibration=calibration)
        predicted = calibration.apply(predicted)
    if spec.sets is None:
        return model
    probability, rng = two_columns(predicted[step - 1 :: step]), np.random.default_rng(spec.seed)
    sets = PredictionSets.fit(probability, label[step - 1 :: step], spec.sets, by=spec.sets_by, per_class=spec.sets_per_class, rng=rng)
    return replace(model, sets=sets)
