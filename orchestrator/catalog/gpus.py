"""GPU facts by name, with a source and a date for each: data/gpus.json, and a user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Literal

from orchestrator.catalog.entries import CatalogFile, GpuEntry, parse_catalog_file
from orchestrator.catalog.suggest import suggest
from orchestrator.errors import UnknownGpu

GB = 10**9


@dataclass(frozen=True)
class GpuSpec:
    """One kind of GPU. Memory in bytes, bandwidths in bytes a second, dense TFLOPS."""

    name: str
    product: str
    vendor: Literal["nvidia", "amd", "cpu"]
    # The label Ray gives the node's GPUs, None where Ray has none for it.
    ray_accelerator_type: str | None
    # What torch reports as the total: the figure `gpu_memory_utilization` multiplies.
    memory_bytes: int
    # "torch": read from torch. "driver" and "assumed": standing in for it, see `note`.
    memory_basis: Literal["torch", "driver", "assumed"]
    driver_memory_bytes: int | None
    hbm_bandwidth_bytes_per_s: int
    tflops: tuple[tuple[str, float], ...]
    # Both ways together; 0 without NVLink.
    nvlink_bytes_per_s: int
    # One way.
    pcie_bytes_per_s: int
    # "9.0", or AMD's target such as "gfx942".
    compute_capability: str
    aliases: tuple[str, ...] = ()
    note: str = ""
    # What a name that spans variants was taken to mean; empty where the name is exact.
    assumption: str = ""
    sources: tuple[str, ...] = field(default=(), compare=False)
    date: str = ""

    @property
    def ray_label(self) -> str:
        """What a node is to declare: Ray's own label, or the name where Ray has none."""
        return self.ray_accelerator_type or self.name

    @property
    def has_nvlink(self) -> bool:
        return self.nvlink_bytes_per_s > 0

    @property
    def cuda_capability(self) -> tuple[int, int] | None:
        """(9, 0) for Hopper; None for GPUs that are not NVIDIA's."""
        if self.vendor != "nvidia":
            return None
        major, _, minor = self.compute_capability.partition(".")
        return int(major), int(minor)

    def tflops_for(self, dtype: str) -> float | None:
        """Dense TFLOPS in `bf16`, `fp8` or `fp4`; None where the GPU has no such arithmetic."""
        return dict(self.tflops).get(dtype)


@dataclass(frozen=True)
class GpuTable:
    """GPUs by every name they go by."""

    gpus: tuple[GpuSpec, ...]
    by_key: Mapping[str, GpuSpec]
    # What names that span variants are taken to mean.
    assumptions: Mapping[str, str]

    def resolve(self, name: str) -> GpuSpec:
        """The GPU of this name: Ray's label, a variant's longer name, or the product's own.

        A name that spans variants has a stated default, kept in `assumption`.
        Raises `UnknownGpu` with near names.
        """
        spec = self.by_key.get(_key(name))
        if spec is None:
            known = tuple(gpu.name for gpu in self.gpus)
            raise UnknownGpu(
                f"GPU {name!r} is not known{suggest(name, known)}; known are {', '.join(known)}, "
                "and what a catalogue file of your own says"
            )
        assumption = self.assumptions.get(_key(name), "")
        return replace(spec, assumption=assumption) if assumption else spec

    def with_own(self, own: tuple[GpuSpec, ...]) -> GpuTable:
        """With a user's GPUs beside these. One of an equal name takes the other's place, other names included."""
        replaced = {_key(gpu.name): gpu for gpu in own}
        kept = tuple(gpu for gpu in self.gpus if _key(gpu.name) not in replaced)
        inherited = {key: replaced.get(_key(gpu.name), gpu) for key, gpu in self.by_key.items()}
        by_key = _by_key(own)
        assumptions = {key: note for key, note in self.assumptions.items() if key not in by_key}
        return GpuTable((*own, *kept), {**inherited, **by_key}, assumptions)


def resolve_gpu(name: str) -> GpuSpec:
    """The GPU of this name among those that ship here."""
    return shipped_gpus().resolve(name)


def cpu_device(memory_bytes: int) -> GpuSpec:
    """A worker on vLLM's CPU platform, which counts `memory_bytes` as its device's memory."""
    return GpuSpec(
        name="CPU",
        product="CPU",
        vendor="cpu",
        ray_accelerator_type=None,
        memory_bytes=memory_bytes,
        memory_basis="torch",
        driver_memory_bytes=None,
        hbm_bandwidth_bytes_per_s=0,
        tflops=(),
        nvlink_bytes_per_s=0,
        pcie_bytes_per_s=0,
        compute_capability="",
    )


@lru_cache(maxsize=1)
def shipped_gpus() -> GpuTable:
    """The GPUs of data/gpus.json."""
    document = json.loads(resources.files("orchestrator.catalog").joinpath("data/gpus.json").read_text("utf-8"))
    gpus = gpus_of(parse_catalog_file({"gpus": document["gpus"]}, "catalog/data/gpus.json"))
    by_key, defaults = _by_key(gpus), document["defaults"]
    by_key.update({_key(name): by_key[_key(entry["is"])] for name, entry in defaults.items()})
    return GpuTable(gpus, by_key, {_key(name): entry["note"] for name, entry in defaults.items()})


def gpus_of(file: CatalogFile) -> tuple[GpuSpec, ...]:
    return tuple(_gpu(entry) for entry in file.gpus)


def _gpu(entry: GpuEntry) -> GpuSpec:
    return GpuSpec(
        name=entry.name,
        product=entry.product or entry.name,
        vendor=entry.vendor,
        ray_accelerator_type=entry.ray_accelerator_type,
        memory_bytes=entry.memory_bytes,
        memory_basis=entry.memory_basis,
        driver_memory_bytes=entry.driver_memory_bytes,
        hbm_bandwidth_bytes_per_s=int(entry.hbm_bandwidth_gb_per_s * GB),
        tflops=tuple(entry.tflops.items()),
        nvlink_bytes_per_s=int(entry.nvlink_gb_per_s * GB),
        pcie_bytes_per_s=int(entry.pcie_gb_per_s * GB),
        compute_capability=entry.compute_capability,
        aliases=entry.aliases,
        note=entry.note,
        sources=entry.sources,
        date=entry.date,
    )


def _by_key(gpus: tuple[GpuSpec, ...]) -> dict[str, GpuSpec]:
    return {_key(name): gpu for gpu in gpus for name in (gpu.name, gpu.product, *gpu.aliases)}


def _key(name: str) -> str:
    """`NVIDIA H100 PCIe`, `h100_pcie` and `H100-PCIe` are one name."""
    words = name.lower().replace("_", "-").replace(" ", "-")
    return words.removeprefix("nvidia-")
