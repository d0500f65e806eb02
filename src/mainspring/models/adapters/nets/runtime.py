"""PyTorch, imported once for every net, and what makes its arithmetic repeat: threads and seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mainspring.errors import MissingExtraError

try:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode
except ImportError as error:
    raise MissingExtraError("A net", "torch", "torch") from error

__all__ = ["functional", "in_blocks", "nn", "repeatable", "torch", "unfilled"]

BLOCK = 64


@contextmanager
def repeatable(seed: int, threads: int) -> Iterator[None]:
    """Inside, torch draws from ``seed`` and uses ``threads`` threads; outside, both are as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def unfilled() -> Iterator[None]:
    """Inside, tensors that nets are made of get a shape, but neither memory nor first values."""
    with torch.device("meta"), _NoFirstValues():
        yield


class _NoFirstValues(TorchFunctionMode):  # on that device drawing them would import the compiler, 70 MiB of it
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        return given["tensor"] if function in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_) else function(*args, **given)


def in_blocks(net: Any, rows: Any) -> Any:
    """What ``net`` gives for ``rows``, 64 at a time, the last block filled up: a row's bits do not hang on how many others there are."""
    missing = BLOCK if not len(rows) else -len(rows) % BLOCK
    filled = torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])
    with torch.inference_mode():
        return torch.cat([net(block) for block in filled.split(BLOCK)])[: len(rows)]
