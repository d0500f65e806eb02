"""PyTorch, imported once for every net, and what makes its arithmetic repeat: threads and seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mainspring.errors import MissingExtraError

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    raise MissingExtraError("A net", "torch", "torch") from error

__all__ = ["functional", "nn", "repeatable", "torch"]


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
