"""Models: what learns, with which settings, and on how much history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mainspring.clock import parse_duration
from mainspring.errors import DeclarationError, did_you_mean
from mainspring.spec.splits import GroupSplit, LeaveLastOut, OneFold, TimeGroupSplit, TimeSplit
from mainspring.spec.text import Text

PLAIN = ("regression", "binary", "multiclass")
OBJECTIVES = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "quantile"), "regression"),
    "binary": "binary",
    "multiclass": "multiclass",
    "lambdarank": "ranking",
}
"""What boosted trees can learn, with the task that it makes."""
OF_NETS = ("regression", "regression_l1", "quantile", "binary", "multiclass")
SHAPES = ("mlp", "wide_and_deep")
CALIBRATIONS = ("isotonic", "platt")
RETRAINS = ("full", "incremental", "both")
INTERVALS = ("residuals", "quantiles")
SETS = ("lac", "aps", "raps")
LEAVES = {"binary": 15}
ROW_FRACTIONS = {"binary": 0.5, "ranking": 0.7}
"""By task, how many leaves a tree of `LightGBM` has and from how many rows or queries it learns, where other than its usual."""
FURTHER = 10
"""Going on from a fitted model takes one in so many of its trees or epochs."""
_OF_XGBOOST = {
    "regression": "reg:squarederror",
    "regression_l1": "reg:absoluteerror",
    "huber": "reg:pseudohubererror",
    "quantile": "reg:quantileerror",
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "lambdarank": "rank:ndcg",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What every model declares: on how much history it is fitted, when and how again, and what is made of its answers.

    ``offset`` names a feature that the model corrects instead of predicting from nothing; where it is null, it is 0 if there
    were such rows in training, and else the model leaves the answer to the fallback. ``interval`` are the two quantiles of
    the predictive interval: by ``residuals`` around the prediction, or with ``interval_by="quantiles"`` around two further
    predictors that learn them, in both cases made so that it holds on held-out rows. ``ignore`` names features that only other
    features use.

    Rows are held out by ``split``; without one, that is the newest ``holdout`` of them. Its validation side is what early stopping,
    calibration, sets and interval look at, and its test side what the gate judges by; without a test side, the same rows do both.
    ``group`` is the column of the request whose values a split by groups keeps together. ``retrain`` says how the model is fitted
    again: ``full`` anew on all rows, ``incremental`` on the rows that are new, going on from the champion's trees or weights, or
    ``both``, of which the better on the held-out rows is taken.

    ``text`` says which features are free text, and how it is read: `Linear` learns weights of terms and of columns together, everything
    else learns from a score of the text, fitted before. Of two classes, ``negatives`` is the share of the zeros that is learned from
    (what the model says is corrected for it), and ``calibration`` (``"isotonic"``, ``"platt"``) makes probabilities of scores, on the
    holdout. Of classes, ``balanced`` gives all the same weight, ``sets`` is the share of rows whose set of classes holds
    the true one, ``sets_by`` how sets are made (`SETS`), and ``sets_per_class`` whether the share holds for each class by itself.
    """

    seed: int = 0
    offset: str | None = None
    interval: tuple[float, float] | None = None
    interval_by: str = "residuals"
    history: str | None = None
    holdout: str = "14d"
    split: OneFold | None = None
    group: str | None = None
    retrain_every: str | None = None
    retrain: str = "full"
    ignore: Sequence[str] = ()
    negatives: float = 1.0
    balanced: bool = False
    calibration: str | None = None
    sets: float | None = None
    sets_by: str = "lac"
    sets_per_class: bool = False
    text: Sequence[Text] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignore", tuple(self.ignore))
        object.__setattr__(self, "text", tuple(self.text))
        columns = [one.column for one in self.text]
        for column in columns:
            if columns.count(column) > 1 or column in (*self.ignore, self.offset):
                raise self._error(f"text '{column}' is named twice, ignored, or the offset. Name it once.")
        if self.interval is not None and not 0 < self.interval[0] < self.interval[1] < 1:
            raise self._error(f"interval {self.interval} must be two rising quantiles between 0 and 1.")
        for name, value, known in (("interval_by", self.interval_by, INTERVALS), ("sets_by", self.sets_by, SETS)):
            if value not in known:
                raise self._error(f"{name} '{value}' is not known.{did_you_mean(value, known)}")
        if self.sets is not None and not 0 < self.sets < 1:
            raise self._error(f"sets={self.sets} must be a share between 0 and 1: how many sets hold the true class.")
        if not 0 < self.negatives <= 1:
            raise self._error(f"negatives={self.negatives} must be a share above 0, at most 1.")
        if self.calibration not in (None, *CALIBRATIONS):
            raise self._error(f"calibration '{self.calibration}' is not known.{did_you_mean(self.calibration or '', CALIBRATIONS)}")
        if self.retrain not in RETRAINS:
            raise self._error(f"retrain '{self.retrain}' is not known.{did_you_mean(self.retrain, RETRAINS)}")
        if not isinstance(self.split, OneFold | None):
            raise self._error(
                f"split {self.split} does not part rows in one way. Declare a TimeSplit, GroupSplit, TimeGroupSplit or LeaveLastOut."
            )
        if isinstance(self.split, GroupSplit | TimeGroupSplit | LeaveLastOut) != (self.group is not None):
            raise self._error(
                f"split {self.split} and group {self.group!r} do not belong together. A split by groups needs the column that groups."
            )
        for duration in (self.history, self.holdout, self.retrain_every):
            if duration is not None:
                parse_duration(duration)

    @property
    def held_out(self) -> OneFold:
        """How rows are held out: as declared, or the newest ``holdout``."""
        return self.split or TimeSplit(self.holdout)

    @property
    def history_us(self) -> int | None:
        """How far back training rows reach, in microseconds; None for all."""
        return None if self.history is None else parse_duration(self.history)

    @property
    def retrain_every_us(self) -> int | None:
        """The retraining schedule in microseconds, or None."""
        return None if self.retrain_every is None else parse_duration(self.retrain_every)

    @property
    def task(self) -> str:
        """What is predicted: ``regression``, ``binary``, ``multiclass`` or ``ranking``."""
        raise NotImplementedError

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """The kind of its learner and that one's settings."""
        raise NotImplementedError

    @property
    def further(self) -> tuple[str, dict[str, Any]] | None:
        """The learner that goes on from a fitted model; None where a model of this kind can only be fitted anew."""
        return None

    def learner_of_quantile(self, level: float) -> tuple[str, dict[str, Any]]:
        """The kind and settings that learn the quantile ``level`` as this model learns its objective."""
        model: Any = self
        kind, settings = replace(model, objective="quantile", quantile=level, interval=None, interval_by="residuals").learner
        return kind, settings

    def _error(self, problem: str) -> DeclarationError:
        return DeclarationError(f"{type(self).__name__}: {problem}")

    def _check(self) -> None:
        """Hold options for classes, and those for numbers, against the task."""
        if self.task != "binary" and (self.negatives < 1 or self.calibration is not None):
            raise self._error(f"negatives and calibration are for two classes, the task is {self.task}.")
        if self.task not in ("binary", "multiclass") and self.balanced:
            raise self._error(f"balanced is for classes, the task is {self.task}.")
        if self.task == "ranking" and self.text:
            raise self._error("text is for numbers and classes, the task is ranking.")
        if self.retrain != "full" and self.further is None:
            raise self._error(f"retrain='{self.retrain}': a model of this kind is fitted anew, which is all it can. Leave it out.")
        if self.task != "regression" and (self.interval is not None or self.offset is not None):
            raise self._error(f"offset and interval are for numbers, the task is {self.task}.")
        if self.interval_by == "quantiles" and (self.interval is None or "quantile" not in {field.name for field in fields(self)}):
            raise self._error("interval_by='quantiles' needs interval=(0.1, 0.9), and a learner of quantiles: LightGBM, XGBoost or Net.")
        if self.sets is not None and self.task not in ("binary", "multiclass"):
            raise self._error(f"sets are for classes, the task is {self.task}. Declare interval=(0.1, 0.9) for numbers.")


@dataclass(frozen=True, slots=True)
class LightGBM(Model):
    """Gradient-boosted trees by LightGBM.

    ``objective`` is one of `OBJECTIVES`; ``quantile`` that of the objective ``quantile``; ``classes`` their number for
    ``multiclass``. With ``patience`` trees are added until the loss on the holdout has not fallen for so many. ``bins`` are the steps of
    a column, of as many rows each, between which a split can fall: rare rows lie in the last of them. ``row_fraction`` is the share of
    the rows that is drawn anew for each tree, of whole queries where they are ranked. It and ``leaves`` are those of `LEAVES` and
    `ROW_FRACTIONS` for the task, where nothing is declared; else 31 and all rows.
    """

    objective: str = "regression"
    trees: int = 300
    leaves: int | None = None
    learning_rate: float = 0.05
    min_leaf_rows: int = 20
    row_fraction: float | None = None
    feature_fraction: float = 1.0
    l2: float = 1.0
    bins: int = 1_023
    classes: int = 1
    quantile: float = 0.5
    patience: int | None = None

    def __post_init__(self) -> None:
        Model.__post_init__(self)
        if self.objective not in OBJECTIVES:
            raise self._error(f"objective '{self.objective}' is not known.{did_you_mean(self.objective, OBJECTIVES)}")
        leaves, fraction = self._size
        if self.trees < 1 or leaves < 2 or self.bins < 2 or not 0 < self.learning_rate <= 1:
            raise self._error("needs trees >= 1, leaves >= 2, bins >= 2 and 0 < learning_rate <= 1.")
        if not 0 < fraction <= 1:
            raise self._error(f"row_fraction={fraction} must be a share above 0, at most 1.")
        _check_classes(self, self.classes)

    @property
    def task(self) -> str:
        """See `Model`."""
        return OBJECTIVES[self.objective]

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        own = ("objective", "trees", "learning_rate", "min_leaf_rows", "feature_fraction", "l2", "bins", "classes", "patience")
        leaves, fraction = self._size
        settings = {name: getattr(self, name) for name in own}
        return "lightgbm", {**settings, "leaves": leaves, "row_fraction": fraction, "alpha": self.quantile}

    @property
    def _size(self) -> tuple[int, float]:
        """The leaves of a tree, and the share of the rows that it learns from."""
        leaves = LEAVES.get(self.task, 31) if self.leaves is None else self.leaves
        return leaves, ROW_FRACTIONS.get(self.task, 1.0) if self.row_fraction is None else self.row_fraction

    @property
    def further(self) -> tuple[str, dict[str, Any]]:
        """See `Model`: a tenth of the trees on top."""
        kind, settings = self.learner
        return kind, {**settings, "trees": max(1, self.trees // FURTHER)}


@dataclass(frozen=True, slots=True)
class XGBoost(Model):
    """Gradient-boosted trees by XGBoost; see `LightGBM`, whose objectives and meanings it shares."""

    objective: str = "regression"
    trees: int = 300
    depth: int = 6
    learning_rate: float = 0.05
    min_leaf_weight: float = 1.0
    row_fraction: float = 1.0
    feature_fraction: float = 1.0
    l2: float = 1.0
    classes: int = 1
    quantile: float = 0.5
    patience: int | None = None

    def __post_init__(self) -> None:
        Model.__post_init__(self)
        if self.objective not in OBJECTIVES:
            raise self._error(f"objective '{self.objective}' is not known.{did_you_mean(self.objective, OBJECTIVES)}")
        if self.trees < 1 or self.depth < 1 or not 0 < self.learning_rate <= 1:
            raise self._error("needs trees >= 1, depth >= 1 and 0 < learning_rate <= 1.")
        _check_classes(self, self.classes)

    @property
    def task(self) -> str:
        """See `Model`."""
        return OBJECTIVES[self.objective]

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        own = ("trees", "depth", "learning_rate", "min_leaf_weight", "row_fraction", "feature_fraction", "l2", "classes", "patience")
        settings = {name: getattr(self, name) for name in own}
        return "xgboost", {**settings, "objective": _OF_XGBOOST[self.objective], "alpha": self.quantile}

    @property
    def further(self) -> tuple[str, dict[str, Any]]:
        """See `Model`: a tenth of the trees on top."""
        kind, settings = self.learner
        return kind, {**settings, "trees": max(1, self.trees // FURTHER)}


@dataclass(frozen=True, slots=True)
class Linear(Model):
    """Ridge regression, or logistic regression where ``objective`` is ``binary`` or ``multiclass``.

    ``l2`` is the penalty on standardised columns against the mean loss of a row.
    """

    objective: str = "regression"
    l2: float = 1e-4

    def __post_init__(self) -> None:
        Model.__post_init__(self)
        _check_plain(self, self.objective)

    @property
    def task(self) -> str:
        """See `Model`."""
        return self.objective

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        return "linear", {"task": self.objective, "l2": self.l2}


@dataclass(frozen=True, slots=True)
class Sklearn(Model):
    """Any estimator of scikit-learn that takes missing numbers, by its path, such as ``sklearn.ensemble.ExtraTreesRegressor``.

    ``settings`` are the estimator's own, by name.
    """

    estimator: str
    objective: str = "regression"
    settings: Sequence[tuple[str, Any]] = ()

    def __post_init__(self) -> None:
        Model.__post_init__(self)
        pairs = self.settings.items() if isinstance(self.settings, Mapping) else self.settings
        object.__setattr__(self, "settings", tuple(tuple(pair) for pair in pairs))
        _check_plain(self, self.objective)
        if not self.estimator.startswith("sklearn."):
            raise self._error(f"'{self.estimator}' is not of scikit-learn. Write its whole path: 'sklearn.ensemble.ExtraTreesRegressor'.")

    @property
    def task(self) -> str:
        """See `Model`."""
        return self.objective

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        return "sklearn", {"estimator": self.estimator, "task": self.objective, "settings": dict(self.settings)}


@dataclass(frozen=True, slots=True)
class Net(Model):
    """A net in PyTorch over all columns: ``mlp``, or ``wide_and_deep`` with a linear part beside it for categories and their ``crosses``.

    ``hidden`` are the widths of its layers. Fitting stops when ``patience`` epochs brought nothing on the holdout.
    """

    objective: str = "regression"
    shape: str = "mlp"
    hidden: Sequence[int] = (128, 64)
    crosses: Sequence[Sequence[str]] = ()
    quantile: float = 0.5
    classes: int = 1
    dropout: float = 0.0
    epochs: int = 20
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    patience: int = 5

    def __post_init__(self) -> None:
        Model.__post_init__(self)
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "crosses", tuple(tuple(pair) for pair in self.crosses))
        if self.objective not in OF_NETS:
            raise self._error(f"objective '{self.objective}' is not known.{did_you_mean(self.objective, OF_NETS)}")
        if self.shape not in SHAPES:
            raise self._error(f"shape '{self.shape}' is not known.{did_you_mean(self.shape, SHAPES)}")
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0 or any(width < 1 for width in self.hidden):
            raise self._error("needs epochs >= 1, batch >= 1, learning_rate > 0 and hidden widths >= 1.")
        if any(len(pair) != 2 for pair in self.crosses) or (self.crosses and self.shape == "mlp"):
            raise self._error("crosses are pairs of columns, for shape='wide_and_deep'.")
        _check_classes(self, self.classes)

    @property
    def task(self) -> str:
        """See `Model`."""
        return OBJECTIVES[self.objective]

    @property
    def learner(self) -> tuple[str, dict[str, Any]]:
        """See `Model`."""
        own = ("objective", "shape", "classes", "dropout", "epochs", "batch", "learning_rate", "weight_decay", "patience")
        lists = {"hidden": list(self.hidden), "crosses": [list(pair) for pair in self.crosses]}
        return "net", {**{name: getattr(self, name) for name in own}, **lists, "level": self.quantile}

    @property
    def further(self) -> tuple[str, dict[str, Any]]:
        """See `Model`: fine-tuned for a tenth of the epochs at a tenth of the learning rate."""
        kind, settings = self.learner
        return kind, {**settings, "epochs": max(1, self.epochs // FURTHER), "learning_rate": self.learning_rate / FURTHER}


def _check_classes(model: Model, classes: int) -> None:
    model._check()
    if (model.task == "multiclass") != (classes > 2):
        raise model._error(f"classes={classes} does not fit the task {model.task}: more than two classes make it multiclass.")


def _check_plain(model: Model, objective: str) -> None:
    if objective not in PLAIN:
        raise model._error(f"objective '{objective}' is not known.{did_you_mean(objective, PLAIN)}")
    model._check()
