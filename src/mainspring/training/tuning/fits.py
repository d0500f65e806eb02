"""Tuning a System's model: an objective that fits it on what is older and judges it on what is newer, both before the gate's holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.metrics.catalog import METRICS, Metric
from mainspring.models.protocol import Floats
from mainspring.spec import Model, System
from mainspring.spec.splits import TimeSplit
from mainspring.training.dataset import Dataset
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model
from mainspring.training.train import split
from mainspring.training.tuning.space import Settings
from mainspring.training.tuning.spaces import Tunable
from mainspring.training.tuning.trials import Report

BY_TASK: Mapping[str, str] = MappingProxyType({"regression": "mae", "binary": "average_precision"})
"""By task, the measure that is tuned for where no requirement and no one names another."""


@dataclass(frozen=True, slots=True)
class Fits:
    """An objective: the measure ``metric`` on ``validation`` of the model fitted to ``examples``, and of learners in rounds after each.

    Interval and calibration are left out: they would be fitted to the rows that judge.
    """

    tunable: Tunable
    names: list[str]
    examples: Examples
    validation: Examples
    metric: str
    threads: int = 1

    def __call__(self, settings: Settings, report: Report) -> float:
        """The measure under such settings."""
        return self.judge(self.tunable.with_settings(settings), report)

    def judge(self, model: Model, report: Report | None = None) -> float:
        """The measure of a declared model."""
        plain = replace(model, interval=None, interval_by="residuals", calibration=None, sets=None)
        fitted = fit_model(
            plain,
            self.names,
            self.examples,
            self.validation,
            threads=self.threads,
            watch=None if report is None else lambda number, predicted: report(number, self._measured(predicted)),
        )
        return self._measured(fitted.predict(self.validation.columns))

    @property
    def goal(self) -> Any:
        """Whether more is better."""
        return "maximize" if METRICS[self.metric].better == "higher" else "minimize"

    def _measured(self, predicted: Floats) -> float:
        metric = METRICS[self.metric]
        options = {"quantile": self.tunable.model.learner[1]["alpha"]} if metric.kind == "quantile" else {}
        return metric.function(predicted, self.validation.label, **options)


def fits_of(system: System, tunable: Tunable, dataset: Dataset, metric: str | None = None, *, threads: int = 1) -> Fits:
    """The objective of a System's model on a data set, less the rows by which a gate judges.

    Where the declared split has a test side, its validation side validates. Else the newest of what is older than the holdout does; labels
    that were not known before a part begins are left out of what precedes it.

    Raises:
        TrainingError: too few rows are left on a side.
        DeclarationError: the measure does not fit the model, or a split by groups has no test side.
    """
    chosen = metric or judged_by(system)
    _check(chosen, system)
    sides, declared = split(system, dataset), system.model.held_out
    if sides.test is sides.validation:
        if not isinstance(declared, TimeSplit):
            raise DeclarationError(
                f"System '{system.name}': {declared} has no test side, so a search would look at what the gate judges by. Declare test=..."
            )
        until = int(dataset.manifest["until"]) - parse_duration(declared.validation)
        sides = split(system, replace(sides.train, manifest={**sides.train.manifest, "until": until}))
    names = [feature.name for feature in system.inputs]
    return Fits(tunable, names, _held(sides.train, names), _held(sides.validation, names), chosen, threads)


def judged_by(system: System) -> str:
    """The measure to tune for: the first that a requirement bounds and the model can be judged by alone, else that of its task."""
    promised = [one.metric for one in system.requirements.quality if one.metric in METRICS and _fits(METRICS[one.metric], system)]
    return promised[0] if promised else "pinball" if _is_quantile(system.model) else BY_TASK[system.model.task]


def _check(name: str, system: System) -> None:
    known = [one.name for one in METRICS.values() if _fits(one, system)]
    if name not in known:
        raise DeclarationError(f"System '{system.name}': its model cannot be tuned for '{name}'.{did_you_mean(name, known)}")


def _fits(metric: Metric, system: System) -> bool:
    kinds = (system.model.task, *(["quantile"] if _is_quantile(system.model) else []))
    return metric.kind in kinds and metric.better in ("higher", "lower") and not {"threshold", "alert_rate"} & set(metric.options)


def _is_quantile(model: Model) -> bool:
    return getattr(model, "objective", "") == "quantile"


def _held(rows: Dataset, names: list[str]) -> Examples:
    return Examples({name: rows.columns[name] for name in names}, rows.label)
