"""Budgets of ranks: the books balance, and published starts of engines come out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.gpus import GpuSpec, cpu_device, resolve_gpu
from orchestrator.catalog.registry import resolve_model
from orchestrator.memory.budget import MemoryBudget, rank_budget, rank_parameters
from orchestrator.memory.buffers import buffer_bytes
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.kv_cache import kv_capacity
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import cut_of
from orchestrator.units import GIB, MIB


def budget(name: str, gpu: str, layout: Layout, stage: int = 0, **engine: object) -> MemoryBudget:
    args = EngineArgs(**engine)  # type: ignore[arg-type]
    return rank_budget(resolve_model(name), layout, stage, 0, 0, args, resolve_gpu(gpu))


def fits(name: str, gpu: str, layout: Layout, **engine: object) -> bool:
    spec, args = resolve_model(name), EngineArgs(**engine)  # type: ignore[arg-type]
    pools = [budget(name, gpu, layout, stage, **engine).kv_cache_bytes for stage in range(layout.pipeline)]
    return kv_capacity(spec, layout, args.resolve(spec, layout, resolve_gpu(gpu)), pools).fits


@pytest.mark.parametrize(
    ("name", "gpu", "layout", "loaded_gib"),
    [
        # vllm-project/vllm issue 16692: DeepSeek V3 over 16 GPUs, "Model loading took 40.3173 GiB".
        ("deepseek-v3", "H100", Layout(tensor=16), 40.3173),
        # A public startup log of Qwen3-235B in FP8 over 4 GPUs, "Model loading took 55.22 GiB".
        ("qwen3-235b-a22b", "H200", Layout(tensor=4), 55.22),
        # vllm-project/vllm issues 33155 and 23278: gpt-oss-120b by Triton's kernels, and by Marlin's.
        ("gpt-oss-120b", "H100", Layout(), 64.38),
        ("gpt-oss-120b", "A100", Layout(), 65.9651),
    ],
)
def test_weights_and_buffers_are_what_the_engine_says_it_loaded(
    name: str, gpu: str, layout: Layout, loaded_gib: float
) -> None:
    """Within half a percent of vLLM's own figure, scales, copies and tables included."""
    spec = resolve_model(name)
    args = EngineArgs().resolve(spec, layout, resolve_gpu(gpu))
    buffers = buffer_bytes(spec, args, (0, spec.num_layers), cut_of(spec, layout))
    loaded = budget(name, gpu, layout).weights_bytes + buffers
    assert loaded / GIB == pytest.approx(loaded_gib, rel=0.005)


def test_weights_are_the_parameters_alone() -> None:
    """An unquantised rank's weights are its parameters at two bytes each; tables go to the overhead."""
    name, layout = "meta-llama/Meta-Llama-3-70B-Instruct", Layout(tensor=4, pipeline=2)
    for stage in (0, 1):
        parameters = rank_parameters(resolve_model(name), layout, stage)
        assert budget(name, "H100", layout, stage).weights_bytes == 2 * parameters


def test_kimi_k2_starts_on_sixteen_h100_and_not_on_eight() -> None:
    """Its deployment over two nodes is known to start; eight cards of 80 GB do not hold the weights."""
    assert fits("kimi-k2", "H100", Layout(tensor=8, pipeline=2), max_model_len=32768)
    assert not fits("kimi-k2", "H100", Layout(tensor=8), max_model_len=2048)
    assert budget("kimi-k2", "H100", Layout(tensor=8)).missing_bytes > 40 * GIB


def test_kimi_k2_on_eight_h200_is_a_matter_of_context() -> None:
    """The rule of thumb refuses it; the exact figure leaves room for a short context."""
    small = {"max_num_seqs": 16, "max_num_batched_tokens": 2048}
    assert fits("kimi-k2", "H200", Layout(tensor=8), max_model_len=8192, **small)
    assert not fits("kimi-k2", "H200", Layout(tensor=8), max_model_len=131_072, **small)


def test_a_dense_70b_in_bf16_does_not_fit_one_card_of_80_gb() -> None:
    """The document's cost table prices it there; the planner must refuse."""
    assert not fits("meta-llama/Meta-Llama-3-70B-Instruct", "H100-PCIe", Layout(), max_model_len=2048)


@given(
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.integers(1, 4),
    expert=st.booleans(),
    utilisation=st.floats(0.1, 1.0),
    gpu=st.sampled_from(["H100", "A100-40G", "H200", "B200", "L40S", "MI300X"]),
    sequences=st.integers(1, 2048),
)
def test_the_five_parts_are_the_whole(
    tensor: int, pipeline: int, expert: bool, utilisation: float, gpu: str, sequences: int
) -> None:
    """Weights, pool, activations, overhead and the free rest add up to the capacity, on every stage."""
    layout = Layout(tensor, pipeline, expert=expert and tensor > 1)
    for stage in range(pipeline):
        b = budget(
            "mixtral-8x7b",
            gpu,
            layout,
            stage,
            gpu_memory_utilization=utilisation,
            max_num_seqs=sequences,
        )
        parts = b.weights_bytes + b.kv_cache_bytes + b.activation_bytes + b.overhead_bytes + b.free_bytes
        assert parts == b.capacity_bytes == resolve_gpu(gpu).memory_bytes
        assert min(b.weights_bytes, b.activation_bytes, b.overhead_bytes, b.free_bytes) >= 0


@given(more_mib=st.integers(0, 200_000))
def test_more_memory_is_a_larger_pool(more_mib: int) -> None:
    """Of the additional memory the share of the utilisation goes to the pool."""
    gpu = resolve_gpu("H100")
    larger = replace(gpu, memory_bytes=gpu.memory_bytes + more_mib * MIB)
    engine = EngineArgs(max_num_seqs=64, max_num_batched_tokens=4096)
    spec, layout = resolve_model("mixtral-8x7b"), Layout(tensor=2)

    def pool(card: GpuSpec) -> int:
        return rank_budget(spec, layout, 0, 0, 0, engine, card).kv_cache_bytes

    assert pool(larger) >= pool(gpu)


def test_a_stated_pool_is_taken_as_it_is() -> None:
    """`kv_cache_memory_bytes` goes before the utilisation, and the books still balance."""
    b = budget("mixtral-8x7b", "H100", Layout(tensor=2), kv_cache_memory_bytes=GIB)
    assert b.kv_cache_bytes == GIB
    assert b.weights_bytes + b.activation_bytes + b.overhead_bytes + b.free_bytes + GIB == b.capacity_bytes


def test_the_first_and_the_last_stage_differ() -> None:
    """The last one samples: counts of words for every sequence, and its logits."""
    layout = Layout(tensor=8, pipeline=2)
    first, last = budget("kimi-k2", "H100", layout, 0), budget("kimi-k2", "H100", layout, 1)
    assert last.overhead_bytes - first.overhead_bytes > 1024 * 163_840 * 4


def test_speculation_loads_the_prediction_layer_on_the_last_stage() -> None:
    """One sparse layer more for DeepSeek V3, on the stage that samples."""
    layout = Layout(tensor=8, pipeline=2)
    plain = budget("deepseek-v3", "H200", layout, 1)
    speculating = budget("deepseek-v3", "H200", layout, 1, num_speculative_tokens=1)
    embedding = 129_280 * 7168 * 2 // 8
    assert 1.2 * GIB < speculating.weights_bytes - plain.weights_bytes - embedding < 1.6 * GIB
    assert budget("deepseek-v3", "H200", layout, 0, num_speculative_tokens=1).weights_bytes == (
        budget("deepseek-v3", "H200", layout, 0).weights_bytes
    )


def test_a_vision_tower_can_be_left_out() -> None:
    """`language_model_only` spares the tower on every rank."""
    layout = Layout(tensor=8)
    whole = budget("kimi-k2.5", "H200", layout).weights_bytes
    text = budget("kimi-k2.5", "H200", layout, language_model_only=True).weights_bytes
    assert whole - text == 2 * (411_279_984 // 8 + 59_863_936)


def test_eager_mode_has_no_graphs() -> None:
    """`enforce_eager` gives their memory to the pool."""
    eager = budget("mixtral-8x7b", "H100", Layout(tensor=2), enforce_eager=True)
    graphs = budget("mixtral-8x7b", "H100", Layout(tensor=2))
    assert eager.overhead_bytes < graphs.overhead_bytes
    assert eager.kv_cache_bytes > graphs.kv_cache_bytes


def test_larger_batches_take_activation_memory() -> None:
    """The engine profiles its largest batch."""
    small = budget("mixtral-8x22b", "H100", Layout(tensor=4), max_num_batched_tokens=2048)
    large = budget("mixtral-8x22b", "H100", Layout(tensor=4), max_num_batched_tokens=16384)
    assert large.activation_bytes > 4 * small.activation_bytes


def test_tokens_of_all_data_ranks_meet_in_the_experts() -> None:
    """With data-parallel attention each rank's experts see the batches of all."""
    tensor = budget("deepseek-v3", "H200", Layout(tensor=8))
    data = budget("deepseek-v3", "H200", Layout(data=8, expert=True))
    assert data.activation_bytes > 5 * tensor.activation_bytes


def test_a_worker_on_the_cpu_has_no_device_overhead() -> None:
    """Neither graphs nor communicators, but the table of rotations."""
    spec = resolve_model("mixtral-8x7b")
    b = rank_budget(spec, Layout(), 0, 0, 0, EngineArgs(), cpu_device(200 * GIB))
    assert b.overhead_bytes == 32_768 * 128 * 2
