"""What is trained on several processes, and how it is spread: the same in each of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from mainspring.errors import DeclarationError, did_you_mean
from mainspring.models.adapters.nets.fitting import Schedule

Parallel = Literal["none", "ddp", "fsdp", "tensor", "pipeline-gpipe", "pipeline-1f1b"]
Precision = Literal["float32", "float64", "bf16"]


class Work(Protocol):
    """What is trained, made anew in each process: the same net, with the same weights, and the same rows everywhere."""

    @property
    def net(self) -> Any:
        """A ``torch.nn.Sequential``; its layers are what is spread."""
        ...

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    def batch(self, numbers: Any) -> tuple[Any, Any]:
        """Inputs and targets, tensors of as many rows, for an int64 tensor of row numbers."""
        ...

    def loss(self, outputs: Any, target: Any) -> Any:
        """The mean loss over the rows; the mean over equal parts of a batch must be that of the batch."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, the same in each process.

    ``work`` names the function, ``module:name``, that makes the `Work` from ``settings`` (JSON). ``parallel`` says how it is spread:

    - ``none``: one process;
    - ``ddp``: each process has the net and a part of each batch;
    - ``fsdp``: likewise, and a part of each weight, gathered when used;
    - ``tensor``: pairs of linear layers split, the first by columns, the second by rows;
    - ``pipeline-gpipe``, ``pipeline-1f1b``: consecutive layers on each process, a batch in ``microbatches``; the second begins
      backward passes before all forward passes are done, and holds fewer of them in memory.

    A batch is a function of the seed and the step; what is left of an epoch below a whole batch is not seen in it. Every
    ``checkpoint_every`` steps, and after the last, a checkpoint is written to ``folder``, which all processes must share.
    ``bf16`` computes in bfloat16 and keeps weights in float32.
    """

    work: str
    settings: Mapping[str, Any]
    folder: str
    parallel: Parallel = "none"
    schedule: Schedule = field(default_factory=Schedule)
    precision: Precision = "float32"
    microbatches: int = 4
    checkpoint_every: int = 200
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for value, known in ((self.parallel, get_args(Parallel)), (self.precision, get_args(Precision))):
            if value not in known:
                raise DeclarationError(f"A training job's '{value}' is not known.{did_you_mean(value, known)}")

    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to go on from a checkpoint: all but the place, the spread and the threads."""
        kept = ("work", "settings", "schedule", "precision", "seed")
        whole = {name: value for name, value in asdict(self).items() if name in kept}
        return dict(json.loads(json.dumps(whole)))

    def make(self) -> Work:
        """The work, from the function that ``work`` names.

        Raises:
            DeclarationError: there is no such function.
        """
        module, _, name = self.work.partition(":")
        try:
            made: Work = getattr(importlib.import_module(module), name)(**self.settings)
        except (ImportError, AttributeError, ValueError) as error:
            raise DeclarationError(
                f"A training job's work '{self.work}' cannot be made ({error}). Name it as 'module:function'."
            ) from error
        return made

    def to_file(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def from_file(cls, path: Path) -> Job:
        """The job that `to_file` wrote."""
        body = json.loads(path.read_text())
        return cls(**{**body, "schedule": Schedule(**body["schedule"])})
