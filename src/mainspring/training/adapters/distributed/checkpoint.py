"""Checkpoints of a spread net and its optimiser: each process writes its parts as safetensors, read back onto any spread."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.errors import MissingExtraError, TrainingError
from mainspring.models.adapters.nets.runtime import torch

try:
    import safetensors  # noqa: F401
    from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
except ImportError as error:
    raise MissingExtraError("A checkpoint", "safetensors", "torch") from error

dist = torch.distributed
STATE = "state.json"
_KEPT = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of one job in one folder; a checkpoint is there whole or not at all, and the last two are kept."""

    folder: Path
    identity: Mapping[str, Any]

    def latest(self) -> tuple[Path, int] | None:
        """The last whole checkpoint and its step.

        Raises:
            TrainingError: it is of another job.
        """
        whole = sorted(path for path in self.folder.glob("step-*") if path.suffix == "")
        if not whole:
            return None
        state = json.loads((whole[-1] / STATE).read_text())
        if state["job"] != self.identity:
            raise TrainingError(f"Checkpoint {whole[-1]} is of another job. Choose another folder, or delete it.")
        return whole[-1], int(state["step"])

    def save(self, net: Any, adam: Any, step: int, loss: float) -> None:
        """Write weights and moments; all processes call it together."""
        part, final = self.folder / f"step-{step:09d}.part", self.folder / f"step-{step:09d}"
        if _first():
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(final, ignore_errors=True)
            part.mkdir(parents=True)
        _together()
        writer = HuggingFaceStorageWriter(str(part), save_distributed=True)
        with _alone_on_purpose():
            dist.checkpoint.save(_state(net, adam), storage_writer=writer)
        if _first():
            (part / STATE).write_text(json.dumps({"job": self.identity, "step": step, "loss": loss}, indent=1))
            for file in part.iterdir():
                _sync(file)
            part.rename(final)
            _sync(self.folder)
            for old in sorted(path for path in self.folder.glob("step-*") if path.suffix == "")[:-_KEPT]:
                shutil.rmtree(old)
        _together()

    def resume(self, net: Any, adam: Any) -> int:
        """Read the last checkpoint into net and optimiser, and return its step; 0 if there is none."""
        found = self.latest()
        _together()
        if found is None:
            return 0
        for parameter in net.parameters():
            moments = {name: torch.zeros_like(parameter.detach()) for name in _MOMENTS}
            adam.state[parameter] = {"step": torch.tensor(float(found[1])), **moments}
        _read(_state(net, adam), found[0])
        return found[1]

    def weights(self, net: Any) -> int:
        """Read the last checkpoint's weights, in one process, into the whole net, whatever the spread that wrote it; returns its step.

        Raises:
            TrainingError: there is none.
        """
        found = self.latest()
        if found is None:
            raise TrainingError(f"{self.folder} holds no checkpoint. Train first.")
        _read(dict(net.state_dict()), found[0])
        return found[1]


def _state(net: Any, adam: Any) -> dict[str, Any]:
    """Weights and moments by name. The optimiser's step count is the job's, so that it need not be stored."""
    moments = {f"adam.{moment}.{name}": adam.state[parameter][moment] for name, parameter in net.named_parameters() for moment in _MOMENTS}
    return {**net.state_dict(), **moments}


def _read(state: dict[str, Any], path: Path) -> None:
    with _alone_on_purpose():
        dist.checkpoint.load(state, storage_reader=HuggingFaceStorageReader(str(path)))


@contextmanager
def _alone_on_purpose() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _first() -> bool:
    return not dist.is_initialized() or bool(dist.get_rank() == 0)


def _together() -> None:
    if dist.is_initialized():
        dist.barrier()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
