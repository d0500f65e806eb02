"""The loop that every net here is fitted by: AdamW, warm-up and cosine, clipped gradients, early stopping with the best weights back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mainspring.errors import TrainingError
from mainspring.models.adapters.nets.runtime import nn, torch


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn.

    The learning rate rises to ``learning_rate`` over the ``warmup`` share of all steps and falls to 0 as a half cosine (Loshchilov
    and Hutter, "SGDR", 2017); ``weight_decay`` is decoupled (AdamW, the same, 2019) and spares vectors; gradients are clipped to the
    norm ``clip``.
    Fitting stops when ``patience`` epochs brought nothing on held-out rows.
    """

    epochs: int = 20
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 5

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at ``step`` of ``steps``."""
        rise = max(1, round(self.warmup * steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def optimiser(net: Any, schedule: Schedule) -> Any:
    """AdamW that decays matrices, tables and kernels, but neither biases nor norms."""
    named = list(net.parameters())
    groups = [
        {"params": [one for one in named if one.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [one for one in named if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=schedule.learning_rate, foreach=False)


def set_rate(adam: Any, rate: float) -> None:
    """Give every group the learning rate."""
    for group in adam.param_groups:
        group["lr"] = rate


def descend(net: Any, loss: Callable[[Any], Any], rows: int, schedule: Schedule, held_out: Callable[[], float] | None) -> list[float]:
    """Fit ``net`` in place and return the held-out losses, one per epoch.

    ``loss`` gives the mean loss of the rows whose numbers it gets, ``held_out`` the loss that decides when to stop and which weights to
    keep: those of its best epoch, or of the last where there is none. Randomness comes from torch's generator.

    Raises:
        TrainingError: the loss is not finite.
    """
    adam, seen, best, stale = optimiser(net, schedule), [], None, 0
    batches = max(1, rows // schedule.batch)
    for epoch in range(schedule.epochs):
        net.train()
        order = torch.randperm(rows)
        for number, batch in enumerate(order.tensor_split(batches)):
            set_rate(adam, schedule.rate(epoch * batches + number, schedule.epochs * batches))
            adam.zero_grad()
            step_loss = loss(batch)
            _finite(step_loss.item(), epoch, schedule)
            step_loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), schedule.clip)
            adam.step()
        net.eval()
        if held_out is None:
            continue
        with torch.inference_mode():
            seen.append(_finite(held_out(), epoch, schedule))
        if seen[-1] == min(seen) and seen.count(seen[-1]) == 1:
            best, stale = {name: one.clone() for name, one in net.state_dict().items()}, 0
        else:
            stale += 1
        if stale == schedule.patience:
            break
    if best is not None:
        net.load_state_dict(best)
    return seen


def _finite(loss: float, epoch: int, schedule: Schedule) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"A net's loss is {loss} in epoch {epoch + 1}, at learning rate {schedule.learning_rate}. "
            "Lower the learning rate, and look for infinite labels or weights."
        )
    return float(loss)
