from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mainspring.errors import StorageError
from mainspring.storage.adapters.lmdb import LmdbKeyValue


def put_many(store: LmdbKeyValue) -> None:
    with store.transaction() as transaction:
        for number in range(1000):
            transaction.put(b"%d" % number, bytes(100))


def test_a_full_store_refuses_the_transaction_and_keeps_what_it_held(tmp_path: Path) -> None:
    with closing(LmdbKeyValue(tmp_path, map_bytes=1 << 16)) as store:
        with store.transaction() as transaction:
            transaction.put(b"first", b"1")
        with pytest.raises(StorageError, match="larger map_bytes"):
            put_many(store)
        assert list(store.scan(b"")) == [(b"first", b"1")]


def test_a_damaged_folder_names_the_mend(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="remove it and rebuild it from the event log"):
        LmdbKeyValue(tmp_path)
