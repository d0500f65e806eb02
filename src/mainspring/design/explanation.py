"""A registered version explained on the rows it was judged by, and one of its logged answers by what would have changed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from mainspring.clock import DAY
from mainspring.columns import Array, from_arrow, to_values
from mainspring.errors import DeclarationError, RegistryError, StorageError, did_you_mean
from mainspring.evaluation.explain.changes import Constraints, changeable, functions_of, recomputing
from mainspring.evaluation.explain.counterfactuals import Counterfactuals, Target, counterfactuals
from mainspring.evaluation.explain.dependence import Dependence, accumulated_local_effects, partial_dependence
from mainspring.evaluation.explain.importance import Importance, check_columns, correlated, mean_contributions, permutation_importance
from mainspring.model_registry import Registry
from mainspring.models.tabular import TabularModel
from mainspring.spec import PREVIOUS, System
from mainspring.storage.prediction_log import PredictionLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training.train import split
from mainspring.training.versions import load_dataset, load_model, recorded

ROWS, REPEATS, DRAWN = 2_000, 3, 6
"""Rows that are explained at most, shuffles of each feature, and features whose dependence is drawn where none is named."""
METRICS = {"regression": "mae", "binary": "log_loss"}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Explained:
    """A version of a System with rows to explain it on: columns of request and features, ``as_of`` and ``label`` of shape ``(n,)``."""

    system: System
    version: str
    model: TabularModel
    columns: Mapping[str, Array]
    as_of: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a version makes of its features: mean absolute contributions, losses when shuffled, and how the answers follow some.

    ``followed`` has partial dependence and accumulated local effects of a feature (None where it has but one value).
    """

    system: str
    version: str
    unit: str
    rows: int
    metric: str
    contributions: tuple[Importance, ...]
    shuffled: tuple[Importance, ...]
    followed: Mapping[str, tuple[Dependence, Dependence | None]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, without the curves of single rows."""
        told = {name: getattr(self, name) for name in ("system", "version", "unit", "rows", "metric")}
        told |= {name: [_finite(asdict(one)) for one in getattr(self, name)] for name in ("contributions", "shuffled")}
        kinds = ("partial_dependence", "accumulated_local_effects")
        followed = {name: {kind: _told(one) for kind, one in zip(kinds, pair, strict=True)} for name, pair in self.followed.items()}
        return {**told, "followed": followed}


def load_explained(
    registry: Registry, space: Workspace, name: str, which: str, *, rows: int = ROWS, newest: bool = True, progress: Progress
) -> Explained:
    """A version of the system ``name``, with ``rows`` of those held back from its training (or evenly of those it was trained on).

    Raises:
        RegistryError: it cannot be loaded, or its training set's record is gone.
        StorageError: the tables that its training set follows from are gone.
    """
    version = registry.resolve(name, which)
    system = System.from_json(registry.artifact(version, "system.json").decode())
    model = load_model(system, registry, version)
    dataset = load_dataset(system, Tables(space.tables), recorded(registry, version), partial(progress, "build training set"))
    sides = split(system, dataset)
    chosen = sides.test if newest else sides.train
    taken = np.unique(np.linspace(0, len(chosen) - 1, min(rows, len(chosen))).astype(np.int64))
    columns = {}
    for number, column in enumerate(chosen.columns):
        progress("read rows", number, len(chosen.columns))
        columns[column] = chosen.columns[column][taken]
    progress("read rows", len(chosen.columns), len(chosen.columns))
    return Explained(system, version.id, model, columns, chosen.as_of[taken], chosen.label[taken])


def explain(
    one: Explained, features: Sequence[str] = (), *, together: float | None = None, seed: int = 0, progress: Progress
) -> Explanation:
    """The explanation of a version; rows of one day count together in its intervals.

    ``features`` are those whose dependence is looked at: without any, the `DRAWN` with the largest contributions. With a column of the
    request what is computed from it changes. ``together`` is the rank correlation from which features are shuffled as one.

    Raises:
        DeclarationError: there is no such feature, or it cannot be followed.
    """
    _check_followed(one, features)
    rng, blocks, names = np.random.default_rng(seed), one.as_of // DAY, list(one.model.encoder.names)
    metric = METRICS[one.system.model.task]
    contributions = mean_contributions(one.model, one.columns, rng=rng, blocks=blocks)
    groups = {name: (name,) for name in names} if together is None else correlated(one.columns, names, together)
    shuffled: list[Importance] = []
    for number, (name, parts) in enumerate(groups.items()):
        progress("shuffle features", number, len(groups))
        found = permutation_importance(
            one.model.predict, one.columns, one.label, {name: parts}, metric=metric, rng=rng, repeats=REPEATS, blocks=blocks
        )
        shuffled += found
    progress("shuffle features", len(groups), len(groups))
    shuffled.sort(key=lambda found: (-found.value, found.name))
    wanted = list(features) or [found.name for found in contributions[:DRAWN]]
    followed = {}
    for number, feature in enumerate(wanted):
        progress("follow features", number, len(wanted))
        followed[feature] = _followed(one, feature, rng)
    progress("follow features", len(wanted), len(wanted))
    return Explanation(
        *(one.system.name, one.version, one.system.label.column, len(one.label), metric, contributions, tuple(shuffled), followed)
    )


def _check_followed(one: Explained, features: Sequence[str]) -> None:
    check_columns(one.columns, features)
    able = {*one.model.encoder.names, *changeable(one.system)}
    for name in features:
        if name not in able:
            raise DeclarationError(
                f"Explanation: '{name}' is no input of the model and cannot be changed by itself: what is looked up by it, or as of it, "
                f"would be otherwise.{did_you_mean(name, able)}"
            )


def _followed(one: Explained, feature: str, rng: np.random.Generator) -> tuple[Dependence, Dependence | None]:
    predict = recomputing(one.model.predict, [function for function in functions_of(one.system) if function.name != feature])
    several = len({value for value in one.columns[feature].tolist() if value is not None and value == value}) > 1
    return (
        partial_dependence(predict, one.columns, feature, rng=rng),
        accumulated_local_effects(predict, one.columns, feature, rng=rng, blocks=one.as_of // DAY) if several else None,
    )


def counterfactuals_of(
    registry: Registry,
    space: Workspace,
    name: str,
    request: str,
    target: Target,
    constraints: Constraints,
    *,
    most: int = 3,
    progress: Progress,
) -> tuple[float, Counterfactuals]:
    """The answer in the log, and what would have to change in the request for another of the version that gave it.

    The version's own answer differs from the logged one where the policy bounded that, or a feature was late. Values are such as it was
    trained on.

    Raises:
        StorageError: no answer with this request id is in the log.
        RegistryError: a rule, not a model, answered it; or the version cannot be loaded.
    """
    table, _ = PredictionLog(space.predictions).read()
    found = table.filter(pc.equal(table.column("request_id"), request))
    if not len(found):
        raise StorageError(
            f"{space.path} has no answer with the request id '{request}'. It stands in the answer, and in the prediction log."
        )
    logged = {column: found.column(column)[-1].as_py() for column in ("answered_by", "version", "score")}
    if logged["answered_by"] not in ("model", PREVIOUS):
        raise RegistryError(
            f"Request '{request}' was answered by the rule '{logged['answered_by']}', not by a model. Name another request."
        )
    one = load_explained(registry, space, name, logged["version"], newest=False, progress=progress)
    types = {f"request.{column}": one.system.request.columns[column].type for column in one.system.request.columns.names}
    types |= {f"feature.{feature.name}": feature.type for feature in one.system.features}
    row = {column.partition(".")[2]: to_values(from_arrow(found.column(column), type_))[-1] for column, type_ in types.items()}
    free, functions = changeable(one.system), functions_of(one.system)
    return logged["score"], counterfactuals(
        one.model, row, target, one.columns, free, functions=functions, constraints=constraints, most=most
    )


def _told(one: Dependence | None) -> list[dict[str, Any]] | None:
    if one is None:
        return None
    points = zip(one.values, *(getattr(one, name).tolist() for name in ("effect", "low", "high", "share")), strict=True)
    return [_finite(dict(zip(("value", "effect", "low", "high", "share"), point, strict=True))) for point in points]


def _finite(told: dict[str, Any]) -> dict[str, Any]:
    """With None for what is infinite, which JSON does not know."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in told.items()}
