"""Estimated time of arrival: minutes from departure to arrival, for flights, taxis and their like."""

from __future__ import annotations

from pathlib import Path

from mainspring.ingestion.recording import Recording
from mainspring.systems.eta.system import system

RECORDINGS = ("flights", "taxi", "taxi-router")


def load(name: str, data: Path | None) -> Recording:
    """One of `RECORDINGS`; the taxi ones need the folder of their data set.

    Raises:
        MissingExtraError: the flights' package is not installed.
        DataError: the taxi data is not there.
    """
    if name == "flights":
        from mainspring.systems.eta import flights

        return flights.load()
    from mainspring.systems.eta import taxi

    return taxi.load(data, router_distance=name == "taxi-router")


__all__ = ["RECORDINGS", "load", "system"]
