"""GPU facts by name: data/gpus.json, with a source and a date for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

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


def resolve_gpu(name: str) -> GpuSpec:
    """The GPU of this name: Ray's label, a variant's longer name, or the product's own.

    A name that spans variants has a stated default, kept in `assumption`.
    Raises `UnknownGpu` with near names.
    """
    table = gpu_table()
    spec = table.by_key.get(_key(name))
    if spec is None:
        known = tuple(gpu.name for gpu in table.gpus)
        raise UnknownGpu(f"GPU {name!r} is not known{suggest(name, known)}; known are {', '.join(known)}")
    assumption = table.assumptions.get(_key(name), "")
    return replace(spec, assumption=assumption) if assumption else spec


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


@dataclass(frozen=True)
class GpuTable:
    gpus: tuple[GpuSpec, ...]
    by_key: Mapping[str, GpuSpec]
    assumptions: Mapping[str, str]


@lru_cache(maxsize=1)
def gpu_table() -> GpuTable:
    text = resources.files("orchestrator.catalog").joinpath("data/gpus.json").read_text("utf-8")
    document = json.loads(text)
    gpus = tuple(_gpu(row) for row in document["gpus"])
    by_key = {_key(name): gpu for gpu in gpus for name in (gpu.name, gpu.product, *gpu.aliases)}
    defaults = document["defaults"]
    by_key.update({_key(name): by_key[_key(entry["is"])] for name, entry in defaults.items()})
    return GpuTable(gpus, by_key, {_key(name): entry["note"] for name, entry in defaults.items()})


def _gpu(row: Mapping[str, Any]) -> GpuSpec:
    return GpuSpec(
        name=row["name"],
        product=row["product"],
        vendor=row["vendor"],
        ray_accelerator_type=row["ray_accelerator_type"],
        memory_bytes=row["memory_bytes"],
        memory_basis=row["memory_basis"],
        driver_memory_bytes=row["driver_memory_bytes"],
        hbm_bandwidth_bytes_per_s=int(row["hbm_bandwidth_gb_per_s"] * GB),
        tflops=tuple(row["tflops"].items()),
        nvlink_bytes_per_s=row["nvlink_gb_per_s"] * GB,
        pcie_bytes_per_s=row["pcie_gb_per_s"] * GB,
        compute_capability=row["compute_capability"],
        aliases=tuple(row["aliases"]),
        note=row["note"],
        sources=tuple(row["sources"]),
        date=row["date"],
    )


def _key(name: str) -> str:
    """`NVIDIA H100 PCIe`, `h100_pcie` and `H100-PCIe` are one name."""
    words = name.lower().replace("_", "-").replace(" ", "-")
    return words.removeprefix("nvidia-")
