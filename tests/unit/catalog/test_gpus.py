"""GPUs by Ray's names, by longer ones for variants, and by the product's own."""

from __future__ import annotations

import pytest

from orchestrator.catalog.gpus import resolve_gpu, shipped_gpus
from orchestrator.errors import UnknownGpu
from orchestrator.units import GIB


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("h100", "NVIDIA H100 80GB HBM3"),
        ("H100-PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("H100-NVL", "NVIDIA H100 NVL"),
        ("H200", "NVIDIA H200"),
        ("B200", "NVIDIA B200"),
        ("A100", "NVIDIA A100-SXM4-80GB"),
        ("A100-80G", "NVIDIA A100-SXM4-80GB"),
        ("A100-40G", "NVIDIA A100-SXM4-40GB"),
        ("A100-80G-PCIe", "NVIDIA A100 80GB PCIe"),
        ("L40S", "NVIDIA L40S"),
        ("AMD-Instinct-MI300X-OAM", "AMD Instinct MI300X"),
    ],
)
def test_names_lead_to_products(name: str, product: str) -> None:
    """Ray's label, a variant's name and the driver's name, in any case of letters."""
    assert resolve_gpu(name).product == product


@pytest.mark.parametrize("name", ["H100", "A100", "A100-80G", "A100-40G"])
def test_a_name_that_spans_variants_states_its_default(name: str) -> None:
    """The plan can print which card was taken."""
    assert "taken as the SXM" in resolve_gpu(name).assumption


def test_an_exact_name_assumes_nothing() -> None:
    """No assumption where the name says it all."""
    assert resolve_gpu("H100-PCIe").assumption == ""


def test_memory_is_what_torch_sees() -> None:
    """Less than the driver's figure, and neither is the nominal one."""
    gpu = resolve_gpu("H100")
    assert gpu.driver_memory_bytes is not None
    assert 79 * GIB < gpu.memory_bytes < gpu.driver_memory_bytes
    assert gpu.memory_basis == "torch"


def test_memory_that_was_not_read_from_torch_says_so() -> None:
    """Every stand-in has a note."""
    for gpu in shipped_gpus().gpus:
        assert (gpu.memory_basis == "torch") == (gpu.note == ""), gpu.name


def test_every_gpu_has_a_source_and_a_date() -> None:
    """Facts are data with their origin."""
    for gpu in shipped_gpus().gpus:
        assert gpu.sources, gpu.name
        assert gpu.date, gpu.name


def test_an_unknown_gpu_is_refused_with_near_names() -> None:
    """One line, near names, and all that are known."""
    with pytest.raises(UnknownGpu, match="did you mean H100") as refused:
        resolve_gpu("H1000")
    assert "MI300X" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_arithmetic_that_a_gpu_lacks_is_none() -> None:
    """FP8 begins with Ada and Hopper."""
    assert resolve_gpu("A100").tflops_for("fp8") is None
    assert resolve_gpu("H100").tflops_for("fp8") == 1979
    assert resolve_gpu("A100").cuda_capability == (8, 0)
