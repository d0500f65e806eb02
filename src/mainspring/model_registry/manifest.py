"""What the manifest of a model says, typed."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import msgspec

from mainspring.errors import RegistryError
from mainspring.model_registry.records import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelManifest:
    """What is known of a model; what is not is empty, as in the manifests of earlier releases.

    ``system`` is the hash of the declaration, ``features`` maps each input to the hash of its definition, ``schema`` each column of the
    request to its type (``request``) and the label to its own (``label``), ``dataset`` is the id of the version that holds the
    training set's manifest. ``seconds`` is the time of the fit, ``bytes`` the size of all artifacts, ``latency`` maps quantiles
    (``p50``, ``p99``) of one row's prediction to microseconds, ``environment`` packages to their versions, ``card`` names the
    artifact that is the model's card, ``licence`` is an SPDX expression. ``start`` is the id of the version that the model went on
    from, ``rows`` the number of rows that it was fitted to itself. A model that was made smaller names in ``made_from`` the version
    that it was made from, and in ``compression`` the steps and what both measured side by side.
    """

    system: str = ""
    features: Mapping[str, str] = field(default_factory=dict)
    schema: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dataset: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    latency: Mapping[str, float] = field(default_factory=dict)
    code: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    card: str = ""
    licence: str = ""
    note: str = ""
    start: str = ""
    rows: int | None = None
    made_from: str = ""
    compression: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it is registered."""
        return asdict(self)

    @classmethod
    def of(cls, version: Version) -> ModelManifest:
        """The manifest of a registered model; what a later release added to it is left out.

        Raises:
            RegistryError: a field has another type.
        """
        try:
            return msgspec.convert(dict(version.manifest), cls)
        except msgspec.ValidationError as error:
            raise RegistryError(f"Version '{version.id}': its manifest is none of a model ({error}). Register it by training.") from error


@cache
def dependencies() -> Mapping[str, str]:
    """Python, this package and those of its dependencies and extras that are installed, with their versions; looked up once."""
    import importlib.metadata

    found = {"python": platform.python_version(), "mainspring": importlib.metadata.version("mainspring")}
    for requirement in importlib.metadata.requires("mainspring") or []:
        name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
