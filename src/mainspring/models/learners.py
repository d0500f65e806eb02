"""Every kind of learner by its name, loaded when used: artifacts name the kind that reads them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.errors import RegistryError, did_you_mean
from mainspring.models.large_tables import OpenTables
from mainspring.models.protocol import Learner, Predictor

_KINDS = {
    "lightgbm": ("lightgbm", "LightGBMLearner"),
    "xgboost": ("xgboost", "XGBoostLearner"),
    "linear": ("sklearn", "LinearLearner"),
    "net": ("nets.net", "declared_net"),
    "onnx": ("onnx.runtime", "OnnxLearner"),
    "sklearn": ("sklearn", "SklearnLearner"),
}

IN_ROUNDS = ("lightgbm", "xgboost", "net")
"""Kinds that learn in rounds, trees or epochs, and can be watched meanwhile."""

WITH_TABLES = ("net",)
"""Kinds that may have tables too large for every process."""


def learner(kind: str, settings: Mapping[str, Any]) -> Learner:
    """The learner of a kind with its settings.

    Raises:
        RegistryError: the kind is not known.
    """
    if kind not in _KINDS:
        raise RegistryError(f"Model: kind '{kind}' is not known.{did_you_mean(kind, _KINDS)} It was made by another version of mainspring.")
    module, name = _KINDS[kind]
    made: Learner = getattr(importlib.import_module(f"mainspring.models.adapters.{module}"), name)(**settings)
    return made


def load_predictor(
    kind: str, settings: Mapping[str, Any], artifacts: Mapping[str, bytes], names: Sequence[str], tables: OpenTables | None = None
) -> Predictor:
    """The predictor that a learner of this kind and settings wrote; with ``tables``, large tables are looked up there, not read.

    Raises:
        RegistryError: the kind is not known, or the artifacts are no such predictor.
        StorageError: what holds its tables cannot be reached.
    """
    made: Any = learner(kind, settings)
    found: Predictor = made.load(artifacts, names, *((tables,) if kind in WITH_TABLES else ()))
    return found
