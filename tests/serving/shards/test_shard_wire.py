"""Frames between shards and those who ask: whole ones are read, all others are refused, and a shard outlives them."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.errors import DeclarationError
from mainspring.models.large_tables import LargeTable, fingerprint
from mainspring.serving.shards.held import KEEP_SECONDS, Held
from mainspring.serving.shards.wire import MAGIC, Frame, Opening, Says, connect, decoded_rows, encoded_rows, parsed, receive, send
from mainspring.storage.blobs import FolderBlobs
from shard_processes import running

NOBODY = bytes(32)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=20), min_size=1, max_size=5))
def test_rows_come_as_they_went(wanted: list[list[int]]) -> None:
    rows = [np.array(one, np.int64) for one in wanted]
    assert [one.tolist() for one in decoded_rows(encoded_rows(rows), len(rows))] == wanted


def test_rows_that_are_cut_are_refused() -> None:
    body = encoded_rows([np.array([1, 2, 3])])
    for cut in (body[:-4], body[:-1], body[:2]):
        with pytest.raises(ValueError):  # noqa: PT011
            decoded_rows(cut, 1)


def test_frames_come_as_they_went() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, Frame(Says.ROWS, NOBODY, b"abc"))
        frame = receive(theirs)
        assert frame is not None
        assert (frame.says, frame.tables, bytes(frame.body)) == (Says.ROWS, NOBODY, b"abc")
        ours.close()
        assert receive(theirs) is None


@pytest.mark.parametrize(
    ("sent", "error", "why"),
    [
        (struct.pack("<I", 3) + b"abc", ValueError, "a frame of 3 bytes"),
        (struct.pack("<I", 2**31), ValueError, "a frame of 2147483648 bytes"),
        (struct.pack("<I4sB32s", 37, b"MSH9", 1, NOBODY), ValueError, "it speaks b'MSH9'"),
        (struct.pack("<I4sB32s", 37, MAGIC, 99, NOBODY), ValueError, "99 is not a valid Says"),
        (struct.pack("<I", 100) + b"half", ConnectionResetError, "within a frame"),
    ],
)
def test_what_is_no_frame_is_refused(sent: bytes, error: type[Exception], why: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        ours.close()
        with pytest.raises(error, match=why):
            receive(theirs)


def test_addresses() -> None:
    assert parsed("unix:/tmp/a") == (socket.AF_UNIX, "/tmp/a")
    assert parsed("host:7000") == (socket.AF_INET, ("host", 7000))
    assert parsed("[::1]:7000") == (socket.AF_INET6, ("::1", 7000))
    for wrong in ("host", ":70", "host:port", "host:70000"):
        with pytest.raises(DeclarationError, match="Give HOST:PORT or unix:PATH"):
            parsed(wrong)


def test_a_shard_refuses_what_it_cannot_read_and_goes_on(tmp_path: Path) -> None:
    data = np.arange(12, dtype="<f4").reshape(6, 2)
    stripes = tuple(FolderBlobs(tmp_path).put(data[stripe::2].tobytes()) for stripe in range(2))
    tables = (LargeTable("t", 6, 2, stripes),)
    name = fingerprint(tables)
    with running(tmp_path, 1) as (shard,), connect(shard.address, 5.0) as connection:

        def asked(frame: Frame) -> tuple[Says, str]:
            send(connection, frame)
            answer = receive(connection)
            assert answer is not None
            return answer.says, bytes(answer.body).decode(errors="replace")

        assert asked(Frame(Says.LOOK_UP, name, encoded_rows([np.array([1])]))) == (Says.LOADING, "")
        assert asked(Frame(Says.OPEN, name, b"{"))[0] is Says.REFUSED
        assert asked(Frame(Says.OPEN, name, b"[]"))[0] is Says.REFUSED
        assert "fingerprint" in asked(Frame(Says.OPEN, NOBODY, Opening(0, 1, tables).encoded()))[1]
        while asked(Frame(Says.OPEN, name, Opening(0, 1, tables).encoded()))[0] is not Says.READY:
            pass
        assert "not in this shard" in asked(Frame(Says.LOOK_UP, name, encoded_rows([np.array([6])])))[1]
        assert asked(Frame(Says.LOOK_UP, name, b"1"))[0] is Says.REFUSED
        assert asked(Frame(Says.READY, name, b""))[0] is Says.REFUSED
        send(connection, Frame(Says.LOOK_UP, name, encoded_rows([np.array([5, 0])])))
        answer = receive(connection)
        assert answer is not None
        assert np.frombuffer(answer.body, "<f4").tolist() == [10, 11, 0, 1]


def test_tables_go_a_while_after_nobody_uses_them(tmp_path: Path) -> None:
    now = [0.0]
    tables = (LargeTable("t", 1, 1, (FolderBlobs(tmp_path).put(bytes(4)),)),)
    held = Held(0, 1, [FolderBlobs(tmp_path)], lambda: now[0])
    assert held.load(b"t", tables) is None
    while held.get(b"t") is None:
        pass
    for now[0], used, there in ((50.0, {b"t"}, True), (50 + KEEP_SECONDS, set(), True), (51 + KEEP_SECONDS, set(), False)):
        held.sweep(used)
        assert (held.get(b"t") is not None) is there
