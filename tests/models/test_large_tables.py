"""Tables in stripes: which row is where, and what a net's files say when a stripe is not what it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import RegistryError, StorageError, TrainingError
from mainspring.models.adapters.nets.columns import LearnedColumns
from mainspring.models.adapters.nets.net import NetLearner
from mainspring.models.adapters.nets.runtime import torch
from mainspring.models.adapters.nets.storing import _digest
from mainspring.models.adapters.nets.tables import FetchedTable
from mainspring.models.large_tables import LargeTable, fingerprint, is_stripe, shard_of, stripe_file
from shard_processes import NAMES, net, questions, table


@given(st.integers(1, 5_000), st.integers(1, 70), st.integers(1, 9))
def test_every_row_is_in_one_stripe_and_one_shard(rows: int, stripes: int, shards: int) -> None:
    made = LargeTable("t", rows, 1, ("",) * stripes)
    assert sum(map(made.rows_in, range(stripes))) == rows
    numbers = np.arange(rows)
    found = shard_of(numbers, stripes, shards)
    assert set(found.tolist()) <= set(range(shards))
    assert all(len(set(found[numbers % stripes == stripe].tolist())) <= 1 for stripe in range(stripes))
    held = [sum(made.rows_in(stripe) for stripe in range(stripes) if stripe % shards == shard) for shard in range(shards)]
    assert np.bincount(found, minlength=shards).tolist() == held


def test_where_a_row_is_never_changes() -> None:
    assert shard_of(np.array([0, 1, 31, 32, 69_999]), 32, 3).tolist() == [0, 1, 1, 0, 0]
    one = LargeTable("0.vectors.0", 2, 1, ("aa", "bb"))
    assert fingerprint([one]).hex().startswith("c9ef5b6de56b93c2")
    assert fingerprint([one]) != fingerprint([replace(one, stripes=("bb", "aa"))]) != fingerprint([])
    assert LargeTable.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_stripes_are_told_from_other_files() -> None:
    assert is_stripe(stripe_file("0.vectors.1", 7))
    assert is_stripe(f"low.{stripe_file('user.0.vectors.1', 99_999)}")
    assert not any(map(is_stripe, ("net.json", "net.safetensors", "model.json", "model.txt", "net.00001x", "evaluation.json")))


def test_altered_and_missing_stripes_are_refused() -> None:
    files = net(1).to_artifacts()
    first = stripe_file(table(files).name, 0)
    flipped = bytes([files[first][0] ^ 1]) + files[first][1:]
    for changed, why in (({first: flipped}, "was altered"), ({first: b""}, "was altered")):
        with pytest.raises(RegistryError, match=why):
            NetLearner().load({**files, **changed}, NAMES)
    with pytest.raises(RegistryError, match=r"these are not this net's weights.*vectors"):
        NetLearner().load({name: data for name, data in files.items() if name != first}, NAMES)
    body = json.loads(files["net.json"])
    body["tables"][0]["rows"] -= 1
    body.pop("digest")
    forged = json.dumps({**body, "digest": _digest(body, files["net.safetensors"])}).encode()
    with pytest.raises(RegistryError, match="has the shape"):
        NetLearner().load({**files, "net.json": forged}, NAMES)


def test_files_of_the_first_format_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainspring.models.adapters.nets.tables.LARGE_BYTES", 1 << 30)
    whole = net(1)
    files = whole.to_artifacts()
    body = json.loads(files["net.json"])
    assert body.pop("tables") == []
    body |= {"format": 1}
    body.pop("digest")
    old = {**files, "net.json": json.dumps({**body, "digest": _digest(body, files["net.safetensors"])}).encode()}
    x = questions(20)
    assert NetLearner().load(old, NAMES).predict(x).tolist() == whole.predict(x).tolist()


def test_a_table_has_what_was_fetched_and_nothing_else() -> None:
    fetched = FetchedTable("t", 2)
    fetched.hold(np.array([0, 4]), np.array([[1, 2], [3, 4]], np.float32))
    assert fetched(torch.tensor([4, 0, 4])).tolist() == [[3, 4], [1, 2], [3, 4]]
    for missing in (3, 5):
        with pytest.raises(StorageError, match="not all rows were fetched"):
            fetched(torch.tensor([missing]))


def test_more_categories_than_float32_tells_apart_are_refused() -> None:
    with pytest.raises(TrainingError, match="Column 'item' has 16777217 categories"):
        LearnedColumns.fit(np.array([[16_777_216.0]]), ["item"], ["item"], "standard")


def test_stripes_are_named_by_their_bytes() -> None:
    files = net(1).to_artifacts()
    held = table(files)
    assert [hashlib.sha256(files[stripe_file(held.name, number)]).hexdigest() for number in range(32)] == list(held.stripes)
