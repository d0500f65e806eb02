"""Dead letters: events that do not fit the declaration, kept with the reason until someone mends them and has them applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.errors import DataError, StorageError
from mainspring.feature_store.online import OnlineStore
from mainspring.storage.durable import locked, make_directory, replacing
from mainspring.storage.log import Frame


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Events ``offset`` to ``end`` of a source, ``rows`` of them, that were left out at the instant ``at``, and why."""

    source: str
    offset: int
    end: int
    rows: int
    reason: str
    at: int


class DeadLetters:
    """Two files a letter in a folder, ``<offset>-<end>``: what it is, as JSON, and its events, as an Arrow stream.

    The events may be mended in place by whatever writes Arrow. A letter that is put in twice, by several workers or after
    a kill, is one letter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, frame: Frame, reason: str, at: int) -> None:
        """Keep a frame durably; where it is kept already nothing changes.

        Raises:
            StorageError: the disk is full or fails.
        """
        import pyarrow as pa

        letter = DeadLetter(frame.source, frame.offset, frame.end, frame.batch.num_rows, reason, at)
        about, events = self._files(letter)
        try:
            make_directory(self._folder)
            with locked(self._folder / "lock"):
                if about.exists():
                    return
                with replacing(events) as file, pa.ipc.new_stream(file, frame.batch.schema) as stream:
                    stream.write_batch(frame.batch)
                with replacing(about) as file:
                    file.write(msgspec.json.encode(letter))
        except OSError as error:
            raise StorageError(f"Dead letters, {about}: cannot be written ({error}). Free space or make the folder writable.") from error

    def letters(self) -> list[DeadLetter]:
        """All of them in the order of the log.

        Raises:
            StorageError: a file is damaged.
        """
        return [self._read(path) for path in sorted(self._folder.glob("*.json"))]

    def frame(self, letter: DeadLetter) -> Frame:
        """The letter's events as they are now, in one batch.

        Raises:
            StorageError: the file is gone or no Arrow stream.
        """
        import pyarrow as pa

        _, path = self._files(letter)
        try:
            table = pa.ipc.open_stream(path.read_bytes()).read_all().combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"Dead letters, {path}: cannot be read ({error}). Write the events as an Arrow stream.") from error
        batches = table.to_batches()
        batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        return Frame(letter.offset, letter.source, batch, letter.end)

    def retry(self, online: OnlineStore) -> tuple[list[DeadLetter], list[DeadLetter]]:
        """Apply what fits by now, once, and drop those letters; the letters that are done and, with fresh reasons, the others.

        A view takes a letter's events only if it left them out itself, in the transaction that forgets so: one that was filled
        from the log since has them already. A letter stays while a view has not come as far as it.

        Raises:
            StorageError: a file is damaged, or the store fails.
        """
        done, left = [], []
        for letter in self.letters():
            if online.offset < letter.end:
                left.append(letter)
                continue
            try:
                online.apply_skipped(self.frame(letter))
            except DataError as error:
                left.append(DeadLetter(letter.source, letter.offset, letter.end, letter.rows, str(error), letter.at))
                continue
            self._drop(letter)
            done.append(letter)
        return done, left

    def _drop(self, letter: DeadLetter) -> None:
        with locked(self._folder / "lock"):
            for path in self._files(letter):
                path.unlink(missing_ok=True)

    def _read(self, path: Path) -> DeadLetter:
        try:
            return msgspec.json.decode(path.read_bytes(), type=DeadLetter)
        except (OSError, msgspec.MsgspecError) as error:
            raise StorageError(f"Dead letters, {path}: not a letter ({error}). Restore it from a copy, or remove it.") from error

    def _files(self, letter: DeadLetter) -> tuple[Path, Path]:
        name = f"{letter.offset:020d}-{letter.end:020d}"
        return self._folder / f"{name}.json", self._folder / f"{name}.arrow"
