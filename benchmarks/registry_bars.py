"""The registry's part of the training benchmark: loading a model, listing versions, registering on SQLite and on PostgreSQL."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from harness import QUICK, Bar, bar, interleaved

from mainspring.model_registry import ModelManifest, Registry
from mainspring.model_registry.manifest import dependencies
from mainspring.models.tabular import TabularModel
from mainspring.spec import LightGBM
from mainspring.training.examples import Examples
from mainspring.training.fitting import fit_model

ROUNDS, REGISTRATIONS, LISTED, COLUMNS = (3, 50, 1_000, 30) if QUICK else (9, 200, 1_000, 30)
NAMES = [f"f{i}" for i in range(COLUMNS)]


def registry_bars(folder: Path) -> list[Bar]:
    """All of them, in ``folder``; the PostgreSQL server comes from a wheel and syncs every commit."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "contracts"))
    from postgres_server import postgres_server

    with postgres_server(durable=True) as url:
        places = {"SQLite": str(folder / "registry"), "PostgreSQL": f"{url}#{folder / 'blobs'}"}
        return [*_loading(places), *_listing(places), *_registering(places)]


def _loading(places: dict[str, str]) -> list[Bar]:
    """From opening the registry to the first prediction, which is held against the model that was registered."""
    model, row = _model()
    expected = model.predict_row(row)

    def load(address: str) -> float:
        started = time.perf_counter()
        with closing(Registry(address)) as registry:
            version = registry.version("model:loaded:1")
            loaded = TabularModel.from_artifacts({name: registry.artifact(version, name) for name in version.artifacts})
            if loaded.predict_row(row) != expected:
                raise SystemExit("the loaded model does not answer as the registered one")
        return (time.perf_counter() - started) * 1e3

    for address in places.values():
        with closing(Registry(address)) as registry:
            registry.register("model", "loaded", _manifest(), model.to_artifacts(), at=0)
        load(address)
    times = interleaved(ROUNDS, {name: partial(load, address) for name, address in places.items()})
    size = sum(map(len, model.to_artifacts().values())) / 1e6
    return [bar(f"{name}: load {size:.1f} MB of trees ready to predict", "ms", times[name], bar=100.0) for name in places]


def _listing(places: dict[str, str]) -> list[Bar]:
    for address in places.values():
        with closing(Registry(address)) as registry:
            for at in range(LISTED):
                registry.register("model", "listed", _manifest(), at=at)
    sides = {name: partial(_list, address) for name, address in places.items()}
    times = interleaved(ROUNDS, sides)
    return [bar(f"{name}: list {LISTED:,} versions", "ms", times[name], bar=50.0) for name in places]


def _list(address: str) -> float:
    with closing(Registry(address)) as registry:
        started = time.perf_counter()
        found = registry.versions("model", "listed")
        seconds = time.perf_counter() - started
    if [one.number for one in found] != list(range(1, LISTED + 1)):
        raise SystemExit("the list is not whole")
    return seconds * 1e3


def _registering(places: dict[str, str]) -> list[Bar]:
    """Registrations a second from one thread, each durable, without artifacts and with one of 1 kB."""
    bars = []
    for what, artifacts in (("", 0), (" with an artifact", 1)):
        sides: dict[str, Callable[[], float]] = {name: partial(_rate, address, artifacts) for name, address in places.items()}
        rates = interleaved(max(1, ROUNDS // 3), sides)
        bars += [bar(f"{name}: registrations{what}", "1/s", rates[name], above=True) for name in places]
    return bars


def _rate(address: str, artifacts: int) -> float:
    rng = np.random.default_rng(time.perf_counter_ns())
    with closing(Registry(address)) as registry:
        started = time.perf_counter()
        for at in range(REGISTRATIONS):
            registry.register("model", "rate", {"at": at}, {"model.txt": rng.bytes(1_000)} if artifacts else None, at=at)
        return REGISTRATIONS / (time.perf_counter() - started)


def _model() -> tuple[TabularModel, list[float]]:
    """200 trees of 31 leaves over 30 features."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, COLUMNS))
    columns = {name: x[:, i] for i, name in enumerate(NAMES)}
    examples = Examples(columns, x @ rng.normal(size=COLUMNS) + np.sin(3 * x[:, 0]))
    model = fit_model(LightGBM(trees=200, leaves=31, learning_rate=0.1), NAMES, examples, examples, threads=1)
    return model, x[0].tolist()


def _manifest() -> dict[str, object]:
    """As large as a system of 30 features has."""
    return ModelManifest(
        features=dict.fromkeys(NAMES, "0" * 16),
        schema={"request": dict.fromkeys(NAMES, "float"), "label": {"y": "float"}},
        parameters={"trees": 200, "leaves": 31},
        metrics={f"metric_{i}": statistics.NormalDist().cdf(i) for i in range(20)},
        environment=dependencies(),
    ).to_dict()
