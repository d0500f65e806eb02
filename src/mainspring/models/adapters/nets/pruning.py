"""Pruned nets: single weights at 0, or whole neurons and channels gone, with fitting in between."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from mainspring.errors import TrainingError
from mainspring.models.adapters.nets.bodies import Mlp, WideAndDeep
from mainspring.models.adapters.nets.net import NetPredictor, build, declared_net
from mainspring.models.adapters.nets.objectives import mean_loss, targets
from mainspring.models.adapters.nets.runtime import nn, repeatable, torch
from mainspring.models.adapters.nets.vision import ImageLearner, ImagePredictor, Images, InvertedResidual, build_images
from mainspring.models.protocol import Floats, Rows
from mainspring.models.pruning import Progress, Prune

ASKED_ROWS = 4_096
AT_ONCE = 256
IMAGE_RATE = 0.1
"""The share of the learning rate at which what is left of an image net learns on."""
P = TypeVar("P", NetPredictor, ImagePredictor)
_OF_A_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class Units:
    """Neurons or channels of a layer: the module that reads them, and the axes of tensors along which they lie."""

    reader: str
    places: tuple[tuple[str, int], ...]


def pruned_net(
    predictor: NetPredictor, settings: Mapping[str, Any], step: Prune, rows: Rows, categorical: Sequence[str],
    *, seed: int, threads: int, progress: Progress,
) -> tuple[NetPredictor, dict[str, Any]]:  # fmt: skip
    """See `mainspring.models.pruning.prune`; ``settings`` are those of `declared_net`.

    Raises:
        TrainingError: the net is neither an MLP nor wide and deep, has no hidden layer, or its loss is not finite.
    """
    body = predictor.body
    if not isinstance(body, Mlp | WideAndDeep) or not body.hidden:
        raise TrainingError(
            f"Prune: a net of the shape {body} is not pruned. Prune an Mlp or WideAndDeep with hidden layers, or distil it."
        )
    learner = declared_net(**settings)
    schedule = replace(learner.schedule, epochs=step.epochs)
    asked, labels = _some(rows.x, rows.y, rows.weight)

    def fitted(smaller: NetPredictor) -> NetPredictor:
        fine = replace(learner, body=smaller.body, schedule=schedule)
        return fine.fit(rows, names=smaller.names, categorical=categorical, held_out=None, seed=seed, threads=threads, start=smaller)

    def narrowed(net: NetPredictor, share: float) -> NetPredictor:
        x = torch.from_numpy(net.columns.apply(asked).astype("float32"))
        units = _neurons(net.net)
        left = _left(net.net, units, _losses(net.net, net.tasks, x, labels), _rest(body.hidden, share))
        thin = replace(body, hidden=tuple(map(len, left)))
        return replace(net, body=thin, net=_cut(net.net, build(thin, net.columns, net.vector, net.tasks), units, left))

    with repeatable(seed, threads):
        smaller = _in_rounds(predictor, step, fitted, narrowed, progress)
    return smaller, {**settings, "hidden": _rest(body.hidden, step.share if step.structured else 0.0)}


def pruned_images(
    predictor: ImagePredictor, learner: ImageLearner, step: Prune, images: Images, y: Floats,
    *, seed: int = 0, threads: int = 1, progress: Progress = lambda _done, _total: None,
) -> ImagePredictor:  # fmt: skip
    """An image net less what ``step`` takes, fitted on to uint8 images ``(n, h, w, c)`` and labels ``(n,)``.

    Structured pruning takes channels inside of the blocks and of the last layer: those that blocks hand on stay, for what a block
    adds to its input has the input's channels. What is left learns on at a tenth of the learner's rate: Han et al., "Learning both weights
    and connections for efficient neural networks", 2015.
    """
    rate = IMAGE_RATE * learner.schedule.learning_rate
    fine = replace(learner, schedule=replace(learner.schedule, epochs=step.epochs, learning_rate=rate))
    asked, labels = _some(images, y, None)
    whole = [len(predictor.net.state_dict()[one.places[0][0]]) for one in _channels(predictor.net)]

    def fitted(smaller: ImagePredictor) -> ImagePredictor:
        return fine.fit(images, y, weight=None, held_out=None, seed=seed, threads=threads, start=smaller)

    def narrowed(net: ImagePredictor, share: float) -> ImagePredictor:
        units = _channels(net.net)
        left = _left(net.net, units, _losses(net.net, (net.task,), torch.from_numpy(asked), labels), _rest(whole, share))
        shape = replace(net.shape, left=_all_widths(net.net, units, left))
        return replace(net, shape=shape, net=_cut(net.net, build_images(shape, net.size[-1], net.task), units, left))

    with repeatable(seed, threads):
        return _in_rounds(predictor, step, fitted, narrowed, progress)


def _in_rounds(predictor: P, step: Prune, fitted: Callable[[P], P], narrowed: Callable[[P, float], P], progress: Progress) -> P:
    for number, share in enumerate(step.shares):
        progress(number, step.rounds)
        smaller = narrowed(predictor, share) if step.structured else replace(predictor, net=_masked(predictor.net, share))
        predictor = fitted(smaller) if step.epochs else smaller
        if not step.structured:
            predictor = replace(predictor, net=_baked(predictor.net))
    progress(step.rounds, step.rounds)
    return predictor


class _Masked(nn.Module):
    """A weight of which only the places in ``kept`` count."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Any) -> Any:
        return torch.where(self.kept, weight, 0.0)


def _masked(net: Any, share: float) -> Any:
    """A copy in which the smallest ``share`` of all weights of layers is held at 0."""
    masked = copy.deepcopy(net)
    layers = _layers(masked)
    sizes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    kept = torch.ones(len(sizes), dtype=torch.bool)
    kept[sizes.argsort(stable=True)[: round(share * len(sizes))]] = False
    for layer, mask in zip(layers, kept.split([layer.weight.numel() for layer in layers]), strict=True):
        nn.utils.parametrize.register_parametrization(layer, "weight", _Masked(mask.view(layer.weight.shape)))
    return masked


def _baked(net: Any) -> Any:
    """The net with its masked weights as plain ones."""
    for layer in _layers(net):
        nn.utils.parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return net


def _layers(net: Any) -> list[Any]:
    return [one for one in net.modules() if isinstance(one, nn.Linear | nn.Conv2d)]


def _neurons(net: Any) -> list[Units]:
    """Those of the hidden layers of an `Mlp` or `WideAndDeep`, in order."""
    chain = [name for name, one in net.named_modules() if isinstance(one, nn.Linear) and name != "1.wide"]
    return [Units(after, ((f"{name}.weight", 0), (f"{name}.bias", 0), (f"{after}.weight", 1))) for name, after in pairwise(chain)]


def _channels(net: Any) -> list[Units]:
    """Those inside of the blocks of an image net that widen, and those of its last layer."""
    inner = [f"{number}.path" for number, one in enumerate(net) if isinstance(one, InvertedResidual) and len(one.path) > 6]
    last = len(net) - 7
    return [*map(_inside, inner), Units(f"{last + 6}", ((f"{last}.weight", 0), *_norm(f"{last + 1}"), (f"{last + 6}.weight", 1)))]


def _inside(path: str) -> Units:
    squeeze = ((f"{path}.6.gate.1.weight", 1), (f"{path}.6.gate.3.weight", 0), (f"{path}.6.gate.3.bias", 0))
    convolutions = ((f"{path}.0.weight", 0), *_norm(f"{path}.1"), (f"{path}.3.weight", 0), *_norm(f"{path}.4"))
    return Units(f"{path}.7", (*convolutions, *squeeze, (f"{path}.7.weight", 1)))


def _norm(name: str) -> tuple[tuple[str, int], ...]:
    return tuple((f"{name}.{part}", 0) for part in _OF_A_NORM)


def _all_widths(net: Any, units: Sequence[Units], left: Sequence[Any]) -> tuple[int, ...]:
    """How many channels each block has inside and the last layer has, where ``left`` of ``units`` stay."""
    narrowed = {one.reader: len(kept) for one, kept in zip(units, left, strict=True)}
    blocks = [(f"{number}.path.{len(one.path) - 2}", one) for number, one in enumerate(net) if isinstance(one, InvertedResidual)]
    inside = [narrowed.get(reader, one.path[-2].in_channels) for reader, one in blocks]
    return (*inside, narrowed[units[-1].reader])


def _left(net: Any, units: Sequence[Units], losses: Iterable[Any], counts: Sequence[int]) -> list[Any]:
    """The ``counts`` units of each layer that matter most, in their order: by what the loss would change without them.

    First-order Taylor criterion: the mean over rows of the size of activation times gradient, summed over an image. Source: Molchanov et
    al., "Pruning convolutional neural networks for resource efficient inference", 2017.
    """
    seen: dict[str, Any] = {}
    matters: dict[str, Any] = {one.reader: 0.0 for one in units}

    def watch(name: str) -> Callable[[Any, Any], None]:
        def hook(_: Any, inputs: Any) -> None:
            inputs[0].retain_grad()
            seen[name] = inputs[0]

        return hook

    hooks = [net.get_submodule(name).register_forward_pre_hook(watch(name)) for name in matters]
    for loss in losses:
        loss.backward()
        for name, activation in seen.items():
            matters[name] = matters[name] + _size(activation.detach() * activation.grad)
    for hook in hooks:
        hook.remove()
    net.zero_grad(set_to_none=True)
    return [
        matters[one.reader].argsort(descending=True, stable=True)[:count].sort().values for one, count in zip(units, counts, strict=True)
    ]


def _losses(net: Any, tasks: Any, x: Any, labels: Any) -> Iterable[Any]:
    return (mean_loss(tasks, net(a), b) for a, b in zip(x.split(AT_ONCE), labels.split(AT_ONCE), strict=True))


def _cut(net: Any, smaller: Any, units: Sequence[Units], left: Sequence[Any]) -> Any:
    """``smaller`` with the weights of ``net`` at what is left of its units."""
    state = net.state_dict()
    for one, kept in zip(units, left, strict=True):
        for name, axis in one.places:
            state[name] = state[name].index_select(axis, kept)
    smaller.load_state_dict(state)
    return smaller.eval()


def _rest(widths: Sequence[int], share: float) -> list[int]:
    return [max(1, round(width * (1 - share))) for width in widths]


def _some(x: Any, y: Floats, weight: Floats | None) -> tuple[Any, Any]:
    """At most `ASKED_ROWS` rows, evenly from all, with their targets."""
    every = slice(None, None, max(1, len(x) // ASKED_ROWS))
    return x[every], torch.from_numpy(targets(y, weight)[every])


def _size(parts: Any) -> Any:
    """From ``(n, units)`` or ``(n, units, h, w)`` to ``(units,)``: summed over an image, sizes summed over rows."""
    return parts.reshape(*parts.shape[:2], -1).sum(dim=2).abs().sum(dim=0)
