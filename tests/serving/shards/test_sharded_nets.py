"""A net whose large table is in other processes answers as the whole one does, to the bit, or says why it cannot."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mainspring.errors import ExportError, StorageError
from mainspring.models.adapters.nets.bodies import WideAndDeep
from mainspring.models.adapters.nets.columns import LearnedColumns, NumberColumn
from mainspring.models.adapters.nets.net import NetLearner, NetPredictor
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.towers import TwoTowerLearner, TwoTowerPredictor
from mainspring.models.adapters.nets.towers import _build as towers
from mainspring.serving.shards.client import FAILURES, ShardedTables, sharded
from shard_processes import NAMES, end, net, questions, running, start, stored, table

DEADLINE = 2.0
SIZES = (0, 1, 2, 63, 64, 65, 500)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole() -> NetPredictor:
    return net(1)


@pytest.fixture(scope="module")
def files(whole: NetPredictor) -> dict[str, bytes]:
    return whole.to_artifacts()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> Path:
    folder = tmp_path_factory.mktemp("blobs")
    stored(folder, files)
    return folder


def small(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in ("net.json", "net.safetensors")}


def opened(files: dict[str, bytes], addresses: list[str], deadline: float = DEADLINE) -> NetPredictor:
    return NetLearner().load(small(files), NAMES, sharded(addresses, deadline, patience=5.0))


def test_loaded_whole_it_answers_as_before(whole: NetPredictor, files: dict[str, bytes]) -> None:
    assert len(files) == 2 + 32
    x = questions(200)
    assert NetLearner().load(files, NAMES).predict(x).tolist() == whole.predict(x).tolist()


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_sharded_it_gives_the_same_bits(whole: NetPredictor, files: dict[str, bytes], folder: Path, shards: int) -> None:
    with running(folder, shards) as held:
        apart = opened(files, [one.address for one in held])
        assert sum(one.numel() for one in apart.net.parameters()) < 5_000
        for seed, rows in enumerate(SIZES):
            x = questions(rows, seed)
            assert apart.predict(x).tolist() == whole.predict(x).tolist()
        x = questions(40)
        assert apart.contributions(x).tolist() == whole.contributions(x).tolist()
        with pytest.raises(ExportError, match="held by shards"):
            apart.to_artifacts()


def test_large_tables_of_scores_are_looked_up_in_the_same_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.models.adapters.nets.tables.LARGE_BYTES", 1 << 16)
    body = WideAndDeep((16,), (("place", "kind"),))
    whole = net(2, body)
    files = whole.to_artifacts()
    stored(tmp_path, files)
    with running(tmp_path, 2) as held:
        apart = opened(files, [one.address for one in held])
        x = questions(300)
        assert apart.predict(x).tolist() == whole.predict(x).tolist()


def test_both_towers_are_looked_up_in_one_question(tmp_path: Path) -> None:
    numbers = {"age": NumberColumn((0.0, 1.0), (0.0, 1.0), gaps=False)}
    user, item = LearnedColumns(("age", "user"), numbers, {"user": 40_000}), LearnedColumns(("item",), {}, {"item": 50_000})
    shape = {"dim": 8, "hidden": [16], "temperature": 0.1, "vector": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        whole = TwoTowerPredictor(("age", "user", "item"), user, item, shape, towers(shape, user, item).eval())
    files = whole.to_artifacts()
    stored(tmp_path, files)
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(100), rng.integers(0, 40_100, 100), rng.integers(0, 50_100, 100)])
    learner = TwoTowerLearner(("age", "user"), ("item",), "item")
    assert learner.load(files, whole.names).predict(x).tolist() == whole.predict(x).tolist()
    with running(tmp_path, 2) as held:
        apart = learner.load(small(files), whole.names, sharded([one.address for one in held], DEADLINE, patience=5.0))
        assert apart.predict(x).tolist() == whole.predict(x).tolist()
        assert apart.users(x[:, :2]).tolist() == whole.users(x[:, :2]).tolist()
        assert apart.items(x[:, 2:]).tolist() == whole.items(x[:, 2:]).tolist()
        assert apart.contributions(x[:20]).tolist() == whole.contributions(x[:20]).tolist()


def test_a_shard_that_starts_anew_loads_what_it_is_asked_for(whole: NetPredictor, files: dict[str, bytes], folder: Path) -> None:
    with running(folder, 2) as held:
        apart = opened(files, [one.address for one in held])
        x = questions(64)
        right = whole.predict(x).tolist()
        held[1].kill()
        with pytest.raises(StorageError, match=r"Shard 1 of 2 .* does not answer"):
            apart.predict(x)
        held.append(start(folder, 1, 2, held[1].address))
        end(held[1:2])
        deadline, problems = time.monotonic() + 10, set()
        while time.monotonic() < deadline:
            try:
                assert apart.predict(x).tolist() == right
                break
            except StorageError as error:
                problems.add(str(error).partition("(")[0] + str(error).partition(")")[2])
                time.sleep(0.02)
        else:
            raise AssertionError(problems)
        assert any("started anew and loads" in one for one in problems)


def test_a_shard_that_hangs_costs_the_deadline_and_then_nothing(whole: NetPredictor, files: dict[str, bytes], folder: Path) -> None:
    with running(folder, 2) as held:
        apart = opened(files, [one.address for one in held], deadline=0.2)
        held[0].send(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(FAILURES):
            with pytest.raises(StorageError, match="Shard 0 of 2"):
                apart.predict(questions(64))
        assert 0.2 * FAILURES <= time.monotonic() - began < 5.0
        began = time.monotonic()
        with pytest.raises(StorageError, match="3 times in a row"):
            apart.predict(questions(64))
        assert time.monotonic() - began < 0.1
        held[0].send(signal.SIGCONT)
        x = questions(64)
        for _ in range(200):
            try:
                assert apart.predict(x).tolist() == whole.predict(x).tolist()
                return
            except StorageError:
                time.sleep(0.05)
        raise AssertionError("it never came back")


def test_rows_of_other_shards_are_answered_while_one_is_gone(whole: NetPredictor, files: dict[str, bytes], folder: Path) -> None:
    with running(folder, 2) as held:
        apart = opened(files, [one.address for one in held])
        held[1].kill()
        x = np.array([[0.5, 15.0, 1.0], [0.5, 2 * 31_999 + 1.0, 2.0]])
        assert apart.predict(x).tolist() == whole.predict(x).tolist()


def test_tables_that_are_not_there_are_refused(files: dict[str, bytes], folder: Path) -> None:
    other = net(7).to_artifacts()
    with running(folder, 2) as held:
        with pytest.raises(StorageError, match=r"Shard 0 of 2 .* refuses: .*stripe 0 .* is in no store"):
            opened(other, [one.address for one in held])
        with pytest.raises(StorageError, match="addressed as shard 0 of 2; list all shards, in their order"):
            opened(files, [one.address for one in reversed(held)])


def test_a_question_about_tables_that_a_shard_has_not_is_never_answered_by_others(
    whole: NetPredictor, files: dict[str, bytes], folder: Path
) -> None:
    """Two versions ask the same shards at the same time; each gets its own rows, and what was altered on the way is no answer."""
    second = net(3)
    stored(folder, second.to_artifacts())
    with running(folder, 2) as held:
        addresses = [one.address for one in held]
        apart = [(opened(files, addresses), whole), (opened(second.to_artifacts(), addresses), second)]
        x = questions(100)
        for _ in range(5):
            for loaded, right in apart:
                assert loaded.predict(x).tolist() == right.predict(x).tolist()
        tables = apart[0][0].tables
        assert isinstance(tables, ShardedTables)
        for shard in tables._shards:
            shard._tables = bytes(32)
        with pytest.raises(StorageError, match="not those that the fingerprint names"):
            apart[0][0].predict(x)


def test_what_is_no_shard_is_not_believed(files: dict[str, bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def babble() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        with pytest.raises(StorageError, match="cannot be reached"):
            NetLearner().load(small(files), NAMES, sharded([address], 1.0, patience=0.3))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StorageError, match=r"cannot be reached \(.*refused.*\)\. Start it, or name its address"):
        NetLearner().load(small(files), NAMES, sharded([address], 1.0, patience=0.3))


def test_connections_go_with_the_model(files: dict[str, bytes], folder: Path) -> None:
    with running(folder, 1) as held:
        apart = opened(files, [held[0].address])
        apart.predict(questions(3))
        held[0].send(signal.SIGTERM)
        time.sleep(0.6)
        assert held[0].process.poll() is None
        apart.predict(questions(3))
        del apart
        gc.collect()
        assert held[0].process.wait(5) == 0


def test_rows_are_asked_for_once(files: dict[str, bytes], folder: Path) -> None:
    with running(folder, 3) as held:
        tables = ShardedTables([table(files)], [one.address for one in held], DEADLINE)
        tables.open(5.0)
        rows = np.array([5, 69_999, 5, 0, 12_345])
        vectors = tables.rows({table(files).name: rows})[table(files).name]
        assert vectors.shape == (5, 16)
        assert vectors[0].tolist() == vectors[2].tolist()
