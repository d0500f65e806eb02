from __future__ import annotations

import subprocess
import sys
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


def test_deleted_bytes_are_in_the_file_until_a_vacuum(tmp_path: Path) -> None:
    with closing(LmdbKeyValue(tmp_path)) as store:
        for action in ("put", "delete"):
            with store.transaction() as transaction:
                for number in range(300):
                    if action == "put":
                        transaction.put(b"%d" % number, b"a-long-secret" * 20)
                    else:
                        transaction.delete(b"%d" % number)
        assert b"a-long-secret" in (tmp_path / "data.mdb").read_bytes()
        assert store.vacuum()
        assert b"a-long-secret" not in (tmp_path / "data.mdb").read_bytes()


def test_a_vacuum_waits_until_others_have_closed_the_store(tmp_path: Path) -> None:
    with closing(LmdbKeyValue(tmp_path)) as store:
        child = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        assert not store.vacuum()
        child.communicate("")
        assert store.vacuum()


HOLDING = """
import sys
from pathlib import Path
from mainspring.storage.adapters.lmdb import LmdbKeyValue
store = LmdbKeyValue(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
