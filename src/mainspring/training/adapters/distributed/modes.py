"""How one net is spread over processes: data, sharded data, tensor and pipeline parallel, each as a backward pass over one batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mainspring.errors import DeclarationError
from mainspring.models.adapters.nets.runtime import nn, torch
from mainspring.training.adapters.distributed.job import Job, Work

dist = torch.distributed


@dataclass(frozen=True, slots=True)
class Spread:
    """This process's part: the layers it holds, and one pass forward and backward.

    ``net`` names its weights as the whole net does. ``backward`` takes inputs and targets and returns the mean loss, or None where it is
    not known. Batches are split into ``data_parts``, of which this process takes ``data_rank``; ``disjoint`` says that no two
    processes hold the same weight.
    """

    net: Any
    backward: Callable[[Any, Any], Any]
    data_parts: int = 1
    data_rank: int = 0
    disjoint: bool = False

    def mean(self, loss: Any) -> float:
        """The loss over the whole batch, the same in each process."""
        if not dist.is_initialized():
            return float(loss)
        device = next(self.net.parameters()).device
        total = torch.tensor([0.0, 0.0] if loss is None else [float(loss), 1.0], dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total[0] / total[1])


def spread(work: Work, job: Job, device: Any) -> Spread:
    """The work as this process does it.

    Raises:
        DeclarationError: its net has no layers that can be split so.
    """
    net = work.net.to(device).to(torch.float64 if job.precision == "float64" else torch.float32)
    net.train()
    kind = {"none": _alone, "ddp": _ddp, "fsdp": _fsdp, "tensor": _tensor}.get(job.parallel, _pipeline)
    return kind(net, work, job, device)


def clip(spreading: Spread, limit: float) -> None:
    """Scale all gradients so that their norm over the whole net, wherever its parts are, is at most ``limit``."""
    gradients = [one.grad for one in spreading.net.parameters() if one.grad is not None]
    parts = _squares([one for one in gradients if _split(one, spreading)], gradients[0].device)
    if dist.is_initialized():
        dist.all_reduce(parts)
    norm = (parts + _squares([one for one in gradients if not _split(one, spreading)], gradients[0].device)).sqrt()
    factor = float((limit / (norm + 1e-6)).clamp(max=1.0))
    for one in gradients:
        _local(one).mul_(factor)


def _alone(net: Any, work: Work, job: Job, device: Any) -> Spread:
    return Spread(net, _whole_pass(net, work, job, device))


def _ddp(net: Any, work: Work, job: Job, device: Any) -> Spread:
    wrapped = nn.parallel.DistributedDataParallel(net, device_ids=[device.index] if device.index is not None else None)
    return Spread(net, _whole_pass(wrapped, work, job, device), dist.get_world_size(), dist.get_rank())


def _fsdp(net: Any, work: Work, job: Job, device: Any) -> Spread:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    for place, layer in enumerate(net):
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh, mp_policy=half if job.precision == "bf16" and place else exact)
    fully_shard(net, mesh=mesh, mp_policy=exact)

    def backward(x: Any, target: Any) -> Any:
        loss = work.loss(net(x), target)
        loss.backward()
        return loss.detach()

    return Spread(net, backward, dist.get_world_size(), dist.get_rank())


def _tensor(net: Any, work: Work, job: Job, device: Any) -> Spread:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {}
    for first, second in _pairs(net, dist.get_world_size()):
        plan[first], plan[second] = ColwiseParallel(), RowwiseParallel()
    parallelize_module(net, init_device_mesh(device.type, (dist.get_world_size(),)), plan)
    return Spread(net, _whole_pass(net, work, job, device))


def _pipeline(net: Any, work: Work, job: Job, device: Any) -> Spread:
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    rank, stages = dist.get_rank(), dist.get_world_size()
    part = _stage(net, rank, stages)
    order = ScheduleGPipe if job.parallel == "pipeline-gpipe" else Schedule1F1B
    schedule = order(PipelineStage(part, rank, stages, device), n_microbatches=job.microbatches, loss_fn=work.loss)

    def backward(x: Any, target: Any) -> Any:
        losses: list[Any] = []
        with _half(job, device):
            if rank == 0:
                schedule.step(x)
            elif rank < stages - 1:
                schedule.step()
            else:
                schedule.step(target=target, losses=losses)
        return torch.stack(losses).mean().detach() if losses else None

    return Spread(part, backward, disjoint=True)


def _whole_pass(net: Any, work: Work, job: Job, device: Any) -> Callable[[Any, Any], Any]:
    def backward(x: Any, target: Any) -> Any:
        with _half(job, device):
            loss = work.loss(net(x), target)
        loss.backward()
        return loss.detach()

    return backward


def _half(job: Job, device: Any) -> Any:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=job.precision == "bf16")


def _pairs(net: Any, processes: int) -> list[tuple[str, str]]:
    """Names of linear layers, two and two, with nothing but layers without weights between."""
    layers = [(name, layer) for name, layer in net.named_children() if any(True for _ in layer.parameters())]
    found, at = [], 0
    while at + 1 < len(layers):
        (first, a), (second, b) = layers[at : at + 2]
        if isinstance(a, nn.Linear) and isinstance(b, nn.Linear) and a.out_features % processes == 0:
            found.append((first, second))
            at += 1
        at += 1
    if not found:
        raise DeclarationError(
            f"A net has no two linear layers in a row whose width splits into {processes} equal parts. "
            f"Choose hidden widths that are multiples of {processes}, or 'fsdp'."
        )
    return found


def _stage(net: Any, rank: int, stages: int) -> Any:
    """Consecutive layers with about an equal share of the weights; each stage has at least one layer with weights."""
    layers = list(net.named_children())
    sizes = [sum(one.numel() for one in layer.parameters()) for _, layer in layers]
    weighty = [place for place, size in enumerate(sizes) if size]
    if len(weighty) < stages:
        raise DeclarationError(
            f"A net with {len(weighty)} layers that have weights does not make {stages} stages. Use fewer processes, or 'fsdp'."
        )
    starts = [0]
    for stage in range(1, stages):
        left = [place for place in weighty if place > starts[-1]]
        open_to = left[: len(left) - (stages - 1 - stage)]
        misfits = [abs(sum(sizes[:place]) - sum(sizes) * stage / stages) for place in open_to]
        starts.append(open_to[misfits.index(min(misfits))])
    end = (*starts[1:], len(layers))[rank]
    return nn.Sequential(OrderedDict(layers[starts[rank] : end]))


def _squares(gradients: list[Any], device: Any) -> Any:
    total = torch.zeros((), dtype=torch.float64, device=device)
    for one in gradients:
        total += _local(one).double().pow(2).sum()
    return total


def _local(gradient: Any) -> Any:
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def _split(gradient: Any, spreading: Spread) -> bool:
    return spreading.disjoint or any(placement.is_shard() for placement in getattr(gradient, "placements", ()))
