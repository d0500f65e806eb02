"""Feast's side of the feature benchmark; run by the Python of its own environment, prints one JSON object.

``join FOLDER``: a point-in-time join of ``asked.parquet`` with ``facts.parquet`` by its DuckDB store. ``online FOLDER HOST:PORT
SIZES``: materialises ``latest.parquet`` into Redis, then reads that many keys at a time. Registry and entities are local files.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

VALUES = [f"f{i}" for i in range(10)]
FEATURES = [f"facts:{name}" for name in VALUES]
READS = 300


def store(folder: Path, file: str, redis: str | None = None) -> FeatureStore:
    """A store with one feature view over a file, without an age limit."""
    online = {"type": "redis", "connection_string": redis} if redis else {"type": "sqlite", "path": str(folder / "feast-online.db")}
    made = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / f"feast-{file}.db"),
            offline_store={"type": "duckdb"},
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    key = Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / file), timestamp_field="event_timestamp")
    schema = [Field(name=name, dtype=Float64) for name in VALUES]
    made.apply([key, FeatureView(name="facts", entities=[key], ttl=timedelta(0), schema=schema, source=source)])
    return made


def join(folder: Path) -> dict[str, float]:
    """Seconds, peak GiB and sum of the answers."""
    feast = store(folder, "feast-facts.parquet")
    asked = pd.read_parquet(folder / "feast-asked.parquet")
    started = time.perf_counter()
    joined = feast.get_historical_features(entity_df=asked, features=FEATURES).to_df()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "checksum": float(joined["f0"].sum())}


def online(folder: Path, redis: str, sizes: list[int]) -> dict[str, object]:
    """Rows a second of materialising, then p50 and p99 in milliseconds per number of keys, and the sum of ``f0`` over the first hundred."""
    feast = store(folder, "feast-latest.parquet", redis)
    known = pd.read_parquet(folder / "feast-latest.parquet", columns=["k"])["k"].to_numpy()
    started = time.perf_counter()
    feast.materialize(datetime(1970, 1, 1, tzinfo=UTC), datetime(1972, 1, 1, tzinfo=UTC))
    measured: dict[str, object] = {"materialise": len(known) / (time.perf_counter() - started)}
    rng = np.random.default_rng(2)
    for size in sizes:
        times = []
        for _ in range(READS):
            asked = [{"k": key} for key in rng.choice(known, size).tolist()]
            started = time.perf_counter()
            feast.get_online_features(features=FEATURES, entity_rows=asked).to_dict()
            times.append((time.perf_counter() - started) * 1e3)
        measured[str(size)] = [float(np.percentile(times, q)) for q in (50, 99)]
    first = feast.get_online_features(features=FEATURES, entity_rows=[{"k": key} for key in known[:100].tolist()]).to_dict()
    return {**measured, "checksum": float(np.sum(first["f0"]))}


if __name__ == "__main__":
    if sys.argv[1] == "join":
        print(json.dumps(join(Path(sys.argv[2]))))
    else:
        print(json.dumps(online(Path(sys.argv[2]), sys.argv[3], [int(size) for size in sys.argv[4:]])))
