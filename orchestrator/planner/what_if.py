"""Which GPUs would do: for every GPU of the catalogue the smallest number that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.cluster.spec import parse_gpus
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.score import Contender
from orchestrator.planner.search import search
from orchestrator.planner.traffic import model_bytes

COUNTS = (1, 2, 3, 4, 6, 8, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class Choice:
    """One kind of GPU: the smallest number that fits at all, and that is fit for production."""

    gpu: GpuSpec
    smallest: Contender | None
    production: Contender | None

    @property
    def num_gpus(self) -> int | None:
        return self.smallest.num_gpus if self.smallest else None


def what_if(request: PlanRequest) -> tuple[Choice, ...]:
    """A choice for every GPU that the cluster's catalogue knows: the fewest first, those that never do last."""
    choices = [_choice(request, gpu) for gpu in request.cluster.gpus.gpus]
    return tuple(sorted(choices, key=lambda choice: (choice.num_gpus or 10**6, choice.gpu.name)))


def _choice(request: PlanRequest, gpu: GpuSpec) -> Choice:
    smallest = production = None
    for contender in _winners(request, gpu):
        smallest = smallest or contender
        if contender.fit.label == "production":
            production = contender
            break
    return Choice(gpu, smallest, production)


def _winners(request: PlanRequest, gpu: GpuSpec) -> Iterator[Contender]:
    for count in COUNTS:
        if _hopeless(request, gpu, count):
            continue
        asked = replace(request, cluster=parse_gpus(f"{count}x{gpu.name}", request.cluster.gpus))
        winner = search(asked).winner
        if winner is not None:
            yield winner


def _hopeless(request: PlanRequest, gpu: GpuSpec, count: int) -> bool:
    """Fewer bytes than the weights alone."""
    needed = sum(model_bytes(request.spec, request.quantization, request.spec.dtype))
    return needed > count * gpu.memory_bytes * request.engine.gpu_memory_utilization
