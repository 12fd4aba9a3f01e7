"""The GPU machines that clouds rent out: data/machines.json, each with its source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from orchestrator.errors import ConfigError
from orchestrator.plan import PlannedNode


@dataclass(frozen=True)
class Machine:
    """One machine type of a cloud. `gpu_type` is a name of the GPU catalogue."""

    name: str
    gpu_type: str
    num_gpus: int
    num_cpus: int
    source: str
    # AWS: network cards with EFA; 0 where there are none, or none is known.
    efa_cards: int = 0


@lru_cache(maxsize=1)
def machines() -> dict[str, tuple[Machine, ...]]:
    """All machine types by provider."""
    text = resources.files("orchestrator.render").joinpath("data/machines.json").read_text(encoding="utf-8")
    providers = json.loads(text)["providers"]
    return {provider: tuple(Machine(**entry) for entry in entries) for provider, entries in providers.items()}


def find_machine(provider: str, node: PlannedNode) -> Machine:
    """The machine type with exactly this node's GPUs. Raises `ConfigError`, naming what there is instead."""
    offered = machines()[provider]
    for machine in offered:
        if (machine.gpu_type, machine.num_gpus) == (node.gpu_type, node.num_gpus):
            return machine
    wanted = f"{node.num_gpus} × {node.gpu_type}"
    sizes = [f"{machine.name} ({machine.num_gpus})" for machine in offered if machine.gpu_type == node.gpu_type]
    if sizes:
        raise ConfigError(f"{provider} has no machine with {wanted}; with {node.gpu_type} it has {', '.join(sizes)}")
    kinds = ", ".join(sorted({machine.gpu_type for machine in offered}))
    raise ConfigError(f"{provider} has no machine with {wanted}; the GPUs known there are {kinds}")
