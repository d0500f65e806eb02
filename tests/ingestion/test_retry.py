from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pytest

import mainspring as ms
from mainspring.clock import parse_instant
from mainspring.errors import StorageError
from mainspring.ingestion import Ingestor, Quarantine, Rejected
from mainspring.ingestion.quarantine import Pending
from mainspring.ingestion.retry import Retried, retry
from mainspring.storage.event_log import EventLog

NOW = parse_instant("2025-03-01T12:00:00Z")


def source(most: float, *expect: object) -> ms.Source:
    schema = {"id": str, "at": datetime, "level": float | None, "count": int | None}
    return ms.Source("readings", schema, event_time="at", event_id="id", ranges={"level": (0, most)}, expect=expect)  # type: ignore[arg-type]


def reading(number: int, level: float) -> dict[str, object]:
    return {"id": f"r{number}", "at": "2025-03-01T11:00:00Z", "level": level}


class Here:
    def __init__(self, path, most=1.0, *expect):
        self.log, self.quarantine = EventLog(path / "events", fsync=False), Quarantine(path / "quarantine")
        self.ingestor = Ingestor(self.log, {"readings": source(most, *expect)}, self.quarantine)

    def retry(self, *mended, **more) -> Retried:
        return retry(self.ingestor, self.log, self.quarantine, "readings", NOW, *mended, **more)

    @property
    def ids(self) -> list[str]:
        return [one for frame in self.log.read() for one in frame.batch.column("_event_id").to_pylist()]


@pytest.fixture
def path(tmp_path):
    here = Here(tmp_path)
    here.ingestor.ingest_rows("readings", [reading(0, 0.5), reading(1, 1.5), reading(2, 3.0), reading(3, 1.6), "no"], NOW)
    assert here.ids == ["r0"]
    return tmp_path


def test_what_a_mended_declaration_accepts_comes_in_once_and_the_rest_stays_with_its_new_reason(path):
    here = Here(path, 2.0)
    assert here.retry() == Retried(2, {"level: must be at most 2.0": 1, "the line is not JSON": 1})
    assert here.ids == ["r0", "r1", "r3"]
    assert [(row.line, row.reason) for row in here.quarantine.read("readings")] == [
        (2, "level: must be at most 2.0"),
        (4, "the line is not JSON"),
    ]
    assert here.retry().accepted == 0
    assert here.ids == ["r0", "r1", "r3"]


def test_rows_are_mended_one_by_one(path):
    here = Here(path)
    done = here.retry(lambda row: {**row.values, "level": 1.0}, wanted=lambda row: row.line in (1, 2))
    assert done == Retried(2, {})
    assert [row.line for row in here.quarantine.read("readings")] == [3, 4]
    assert [frame.batch.column("level").to_pylist() for frame in here.log.read(1)] == [[1.0, 1.0]]


def test_rows_that_come_during_a_retry_wait_for_the_next(path):
    here = Here(path, 2.0)

    def mend(row):
        if row.line == 1:
            here.quarantine.add("readings", [Rejected(9, "x", reading(9, 0.1))], NOW)
        return row.values

    assert here.retry(mend).accepted == 2
    assert here.retry().accepted == 1
    assert here.ids == ["r0", "r1", "r3", "r9"]


def test_a_refused_batch_comes_out_as_its_rows(tmp_path):
    here = Here(tmp_path, 1.0, ms.Rows(at_least=3, refuse=True), ms.Ahead("5m"))
    here.ingestor.ingest_rows("readings", [reading(1, 0.5), reading(2, 7.0)], NOW, whole=True)
    assert here.retry(wanted=lambda row: row.reason.startswith("batch refused")) == Retried(1, {})
    assert here.ids == ["r1"]
    assert [row.reason for row in here.quarantine.read("readings")] == ["level: must be at most 1.0"]


def test_a_table_s_row_comes_out_as_it_would_have_come_in(tmp_path):
    import pyarrow as pa

    here = Here(tmp_path)
    given = pa.table({"id": ["a", "b"], "at": [NOW, NOW + 1], "level": [5.0, 5.0], "count": [3.0, None]})
    here.ingestor.ingest("readings", given, NOW)
    assert Here(tmp_path, 9.0).retry().accepted == 2
    [frame] = here.log.read()
    assert frame.batch.column("at").to_pylist() == [NOW, NOW + 1]
    assert frame.batch.column("count").to_pylist() == [3, None]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_retry import Here

here = Here(Path(sys.argv[1]), 2.0)
append, settle = here.log.append, here.quarantine.settle

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def append_and_die(source, batch):
    append(source, batch)
    kill()

if sys.argv[2] == "before":
    here.log.append = kill
elif sys.argv[2] == "after":
    here.log.append = append_and_die
else:
    here.quarantine.begin = kill
here.retry()
"""


@pytest.mark.parametrize("when", ["unmarked", "before", "after"])
def test_a_retry_killed_at_any_point_lets_each_row_in_once(path, when):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(2):
        died = subprocess.run([sys.executable, "-c", KILLED, path, when, os.path.dirname(__file__)], env=environment, check=False)
        assert died.returncode in (-signal.SIGKILL, 0)
    here = Here(path, 2.0)
    here.retry()
    assert here.ids == ["r0", "r1", "r3"]
    assert [row.line for row in here.quarantine.read("readings")] == [2, 4]
    assert here.quarantine.pending("readings") is None


def test_a_full_log_leaves_the_rows_in_quarantine(path, monkeypatch):
    here = Here(path, 2.0)

    def full(source, batch):
        raise StorageError("full")

    monkeypatch.setattr(here.log, "append", full)
    with pytest.raises(StorageError, match="full"):
        here.retry()
    assert here.quarantine.counts("readings").total() == 4
    assert Here(path, 2.0).retry().accepted == 2


def test_damaged_marks_let_nothing_in_twice(path):
    here = Here(path, 2.0)
    here.retry()
    file = path / "quarantine" / "readings.jsonl"
    text = file.read_bytes()
    file.write_bytes(text.replace(b'"accepted": [1, 3]', b'"accepted": [1, 2]'))
    assert here.quarantine.damaged("readings") == 1
    assert here.quarantine.pending("readings") == Pending((1, 3), ("r1", "r3"), 1)
    here.retry()
    assert here.ids == ["r0", "r1", "r3"]


def test_lines_of_other_shapes_are_damaged_and_not_tripped_over(path):
    quarantine = Quarantine(path / "quarantine")
    file = path / "quarantine" / "readings.jsonl"
    good = file.read_bytes().splitlines()[0]
    lines = [b"5", b"{}", b'{"at": 1}', b'{"mark": "x"}', b"\xff", b"", b"[" * 100_000, good.replace(b'"row": 1', b'"row": 7')]
    file.write_bytes(good + b"\n" + b"\n".join(lines) + b"\n")
    assert [row.row for row in quarantine.read("readings")] == [1]
    assert quarantine.damaged("readings") == len(lines)
    assert quarantine.sources == ["readings"]


def test_two_processes_may_quarantine_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mainspring.ingestion import Quarantine, Rejected\n"
        "for i in range(100): Quarantine(Path(sys.argv[1])).add('a', [Rejected(i, 'r', {'x': 'y' * 5000})] * 3, 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen([sys.executable, "-c", code, tmp_path], env=environment) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert Quarantine(tmp_path).counts("a").total() == 600
    assert all(json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())
