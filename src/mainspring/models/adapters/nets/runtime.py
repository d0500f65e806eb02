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
except ImportError as error:
    raise MissingExtraError("A net", "torch", "torch") from error

__all__ = ["functional", "in_blocks", "nn", "repeatable", "torch"]

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


def in_blocks(net: Any, rows: Any) -> Any:
    """What ``net`` gives for ``rows``, 64 at a time, the last block filled up: a row's bits do not hang on how many others there are."""
    missing = BLOCK if not len(rows) else -len(rows) % BLOCK
    filled = torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])
    with torch.inference_mode():
        return torch.cat([net(block) for block in filled.split(BLOCK)])[: len(rows)]
