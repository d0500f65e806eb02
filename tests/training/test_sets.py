"""Training sets on disk: found by what they follow from, grown by what is new, never half there."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from delivery import NOW, at_depot, build, system, tables
from mainspring.clock import DAY
from mainspring.columns import Array
from mainspring.errors import StorageError
from mainspring.feature_store.offline import OfflineStore
from mainspring.ingestion import Ingestor, Quarantine
from mainspring.storage.event_log import EventLog
from mainspring.storage.tables import Tables
from mainspring.storage.workspace import Workspace
from mainspring.training import dataset as module
from mainspring.training.dataset import Dataset, DatasetBuilder
from mainspring.training.sets import Lazy, Sets


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("sets") / "space", versions=0)


@pytest.fixture
def builder(space: Workspace, tmp_path: Path) -> DatasetBuilder:
    return DatasetBuilder(system, Tables(space.tables), tmp_path / "sets")


def files(builder: DatasetBuilder) -> set[str]:
    assert builder.folder is not None
    return {file.name for file in builder.folder.rglob("*.arrow") if "columns" in file.parts}


def close(left: Array, right: Array) -> bool:
    if left.dtype == np.float64:
        return bool(np.allclose(left, right, rtol=1e-9, equal_nan=True))
    return bool(left.tolist() == right.tolist())


def assert_same(left: Dataset, right: Dataset) -> None:
    assert left.columns.keys() == right.columns.keys()
    assert np.array_equal(left.as_of, right.as_of)
    assert np.array_equal(left.label, right.label)
    assert np.array_equal(left.label_known_at, right.label_known_at)
    assert [name for name in left.columns if not close(left.columns[name], right.columns[name])] == []


def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("features were computed")

    monkeypatch.setattr(OfflineStore, "features", refuse)


def test_the_same_set_is_found_and_nothing_is_computed(builder: DatasetBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = builder.build(None, NOW)
    nothing_is_computed(monkeypatch)
    again = builder.build(None, NOW)
    assert again.hash == first.hash
    assert_same(first, again)


def test_what_is_known_later_makes_no_other_set(builder: DatasetBuilder, space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    early = builder.build(None, NOW - 9 * DAY)
    assert early.manifest["sources"]["done"]["rows"] < 4_000
    nothing_is_computed(monkeypatch)
    assert builder.build(None, NOW - 9 * DAY).hash == early.hash


def test_one_set_has_one_address_however_its_facts_were_logged(builder: DatasetBuilder, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log", fsync=False)
    ingestor = Ingestor(log, {one.name: one for one in (system.request, *system.sources)}, Quarantine(tmp_path / "quarantine"))
    other = Tables(tmp_path / "tables")
    for name, table in tables().items():
        for begin in range(0, len(table), 700):
            ingestor.ingest(name, table.slice(begin, 700), at=NOW)
            other.catch_up(log)
    assert len(other.files("done")) > 3
    one, two = builder.build(None, NOW), DatasetBuilder(system, other).build(None, NOW)
    assert one.manifest == {**two.manifest, "log_position": one.manifest["log_position"]}
    assert_same(one, two)


def test_one_changed_feature_makes_a_new_set_and_only_its_columns(builder: DatasetBuilder) -> None:
    first, held = builder.build(None, NOW), files(builder)
    wider = [at_depot.count("2d", name="at_depot__count_1d") if one.name == "at_depot__count_1d" else one for one in system.features]
    changed = dataclasses.replace(builder, system=dataclasses.replace(system, features=wider))
    second = changed.build(None, NOW)
    assert second.manifest["address"] != first.manifest["address"]
    assert len(files(builder) - held) == 1
    assert (second.columns["at_depot__count_1d"] >= first.columns["at_depot__count_1d"]).all()
    assert (second.columns["at_depot__count_1d"] > first.columns["at_depot__count_1d"]).any()
    mean = "at_depot__minutes_mean_7d"
    assert np.array_equal(second.columns[mean], first.columns[mean], equal_nan=True)


def test_a_set_that_grows_computes_only_its_new_rows(builder: DatasetBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.build(None, NOW - 5 * DAY)
    asked: list[int] = []
    features = OfflineStore.features

    def counted(store: OfflineStore, questions: pa.Table, **options: object) -> object:
        asked.append(len(questions))
        return features(store, questions, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(OfflineStore, "features", counted)
    grown = builder.build(NOW - 30 * DAY, NOW)
    assert sum(asked) < 700
    monkeypatch.undo()
    assert_same(grown, dataclasses.replace(builder, folder=Path(f"{builder.folder}-again")).build(NOW - 30 * DAY, NOW))


def test_a_stretch_without_questions_is_no_obstacle(builder: DatasetBuilder) -> None:
    first = builder.build(None, NOW)
    later = builder.build(None, NOW + 5 * DAY)
    assert_same(first, later.take(np.isin(later.as_of, first.as_of)))
    assert later.manifest["address"] != first.manifest["address"]
    assert len(builder.build(NOW - 3 * DAY, NOW + 6 * DAY)) < len(first)


def test_stretches_do_not_show(builder: DatasetBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builder.build(None, NOW)
    monkeypatch.setattr(module, "STRETCH_ROWS", 300)
    cut = dataclasses.replace(builder, folder=Path(f"{builder.folder}-cut"))
    parts = cut.build(None, NOW)
    assert len(Sets(Path(f"{builder.folder}-cut")).read(parts.manifest["address"])[1]) > 10
    assert_same(whole, parts)
    assert parts.hash == whole.hash


def test_an_event_that_comes_late_is_in_the_next_set(space: Workspace, tmp_path: Path) -> None:
    copy = Workspace(shutil.copytree(space.path, tmp_path / "space"))
    builder = DatasetBuilder(system, Tables(copy.tables))
    before = builder.build(None, NOW)
    log = EventLog(copy.events)
    late = next(frame.batch for frame in log.read() if frame.source == "done").slice(0, 500)
    ids = pa.array([f"{one}-late" for one in late.column("_event_id").to_pylist()])
    log.append("done", late.set_column(late.schema.get_field_index("_event_id"), "_event_id", ids))
    builder.tables.catch_up(log)
    after = builder.build(None, NOW)
    assert after.manifest["address"] != before.manifest["address"]
    name = "at_depot__count_1d"
    assert (after.columns[name] > before.columns[name]).any()
    assert_same(after, dataclasses.replace(builder, folder=tmp_path / "again").build(None, NOW))


def test_the_manifest_says_what_it_was_made_of(builder: DatasetBuilder) -> None:
    made = builder.build(None, NOW)
    manifest = json.loads(json.dumps(made.manifest))
    assert manifest["features"] == system.feature_hashes
    assert manifest["rows"] == len(made)
    assert set(manifest["sources"]) == {"drives", "done", "depots"}
    assert manifest["sources"]["drives"]["rows"] == 4_000
    assert manifest["sources"]["drives"]["first"] <= manifest["sources"]["drives"]["last"] < NOW
    assert manifest["label"]["mean"] == pytest.approx(made.label.mean())
    assert manifest["nulls"]["drive"] == 0
    mean = made.columns["at_depot__minutes_mean_7d"]
    assert manifest["nulls"]["at_depot__minutes_mean_7d"] == pytest.approx(np.isnan(mean).mean())
    assert np.isnan(mean).any()


def test_columns_are_read_when_they_are_asked_for(builder: DatasetBuilder) -> None:
    made = builder.build(None, NOW)
    later = made.take(made.as_of > NOW - 10 * DAY)
    for columns in (made.columns, later.columns):
        assert isinstance(columns, Lazy)
        assert columns._held == {}
    assert len(later.columns["km"]) == len(later)
    assert set(made.columns._held) == {"km"}  # type: ignore[attr-defined]


def test_a_damaged_set_says_how_to_mend_it(builder: DatasetBuilder) -> None:
    made = builder.build(None, NOW)
    assert builder.folder is not None
    (builder.folder / "sets" / made.manifest["address"] / "manifest.json").write_text("{")
    with pytest.raises(StorageError, match=r"Remove .*: it is built again"):
        builder.build(None, NOW)


def test_killed_anywhere_a_set_is_whole_or_not_there(builder: DatasetBuilder, space: Workspace, tmp_path: Path) -> None:
    assert builder.folder is not None
    whole, dice, killed = dataclasses.replace(builder, folder=tmp_path / "whole").build(None, NOW), random.Random(2), 0
    for _ in range(6):
        command = [sys.executable, __file__, str(space.path), str(builder.folder)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0.0, 0.5))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        child.stdout.close()
        for address in Sets(builder.folder).addresses():
            assert address == whole.manifest["address"]
            assert_same(module.load(Sets(builder.folder), address, system), whole)
    assert killed
    assert_same(builder.build(None, NOW), whole)


if __name__ == "__main__":
    module.STRETCH_ROWS = 500
    print("started", flush=True)
    DatasetBuilder(system, Tables(Workspace(Path(sys.argv[1])).tables), Path(sys.argv[2])).build(None, NOW)
