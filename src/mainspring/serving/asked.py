"""Versions that are asked for by number, whatever is live."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.errors import MainspringError, RegistryError, RequestError, ServingError
from mainspring.model_registry.registry import Registry
from mainspring.serving.answer import Answer, Ask
from mainspring.serving.service import LATE, PredictionService
from mainspring.serving.versions import LoadedVersion, load

IN_MEMORY = 2
"""Bytes in memory to a byte of a version's artifacts: 1.0 to 1.5 as measured of boosted trees of 0.6 to 11 MB, rounded up."""


class AskedVersion:
    """One version, which answers alone: no rule and no other version stands in for it, and nothing is scored in shadow."""

    def __init__(self, service: PredictionService, version: LoadedVersion, size: int) -> None:
        """``size`` is how many bytes it is taken to need."""
        self.size = size
        self._service, self._version = service, version

    def answer_many(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        """As `PredictionService.answer_many`; in the log the variant of these answers is ``asked``."""
        return self._service.answer_by([("model", self._version)], asks)

    def answer_late(self, asks: Sequence[Ask]) -> list[Answer | MainspringError]:
        """Errors: nothing else may answer."""
        for ask in asks:
            ask.claim()
        return [ServingError(f"{LATE} Ask again later, or allow more time.") for _ in asks]


def load_asked(service: PredictionService, registry: Registry, number: int, most: int) -> AskedVersion:
    """The model of that number from the registry, if it needs at most ``most`` bytes in memory.

    Raises:
        RequestError: there is no such version (404), it cannot be loaded (409), or is larger (422).
    """
    system = service.system
    try:
        version = registry.version(f"model:{system.name}:{number}")
    except RegistryError as error:
        raise RequestError("version", f"System '{system.name}' has no version {number}.", 404) from error
    size = IN_MEMORY * int(version.manifest["bytes"])
    if size > most:
        raise RequestError("version", f"{version.id} needs about {size} bytes, of {most}. Raise limits.memory in the server's settings.")
    loaded = load(system, registry, version.id)
    if loaded.model is None:
        raise RequestError("version", f"{version.id} cannot be loaded: {loaded.problem}", 409)
    return AskedVersion(service, loaded, size)
