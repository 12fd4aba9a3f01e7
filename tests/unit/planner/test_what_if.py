"""Which GPUs would do: the smallest number of each kind, found by planning."""

from __future__ import annotations

from orchestrator.planner.what_if import Choice, what_if
from tests.unit.planner.helpers import ask


def by_gpu() -> dict[str, Choice]:
    return {choice.gpu.name: choice for choice in what_if(ask("deepseek-v3.2", "1xH200"))}


def test_the_smallest_number_is_the_one_that_plans() -> None:
    """DeepSeek V3.2: 8 × H200 for production, 16 × H100; sparse attention has no backend on Ampere."""
    choices = by_gpu()
    production = choices["H200"].production
    assert production is not None
    assert production.num_gpus == 8
    assert choices["H100"].num_gpus == 16
    assert choices["A100-80G"].num_gpus is None


def test_the_fewest_come_first_and_the_hopeless_last() -> None:
    numbers = [choice.num_gpus or 10**6 for choice in what_if(ask("mixtral-8x7b", "1xH100"))]
    assert numbers == sorted(numbers)
