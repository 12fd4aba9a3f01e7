"""Why the chosen layout was chosen, in sentences with the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.planner.links import NETWORK
from orchestrator.planner.score import CRITERIA, Contender, deciding
from orchestrator.planner.search import Found
from orchestrator.planner.traffic import ALL_REDUCES_PER_LAYER, all_reduce_bytes, model_bytes
from orchestrator.units import format_bytes


def explain(found: Found, winner: Contender) -> tuple[str, ...]:
    """The strategy, the criteria in the order in which they were applied, and the runner-up."""
    return (*_strategy(winner), *_criteria(winner), *_runner_up(found, winner), _caveat(winner))


def _strategy(winner: Contender) -> Iterator[str]:
    yield from _size(winner)
    if winner.layout.tensor > 1:
        yield _tensor(winner)
    if winner.layout.pipeline > 1:
        yield _pipeline(winner)
    if winner.request.spec.is_moe and winner.layout.tensor * winner.layout.data > 1:
        yield _experts(winner)


def _size(winner: Contender) -> Iterator[str]:
    request, fit = winner.request, winner.fit
    stored = sum(model_bytes(request.spec, fit.args.quantization, fit.args.dtype))
    gpu = winner.candidate.pool.weakest_gpu
    usable = int(gpu.memory_bytes * fit.args.gpu_memory_utilization)
    yield (
        f"Memory: the weights are {format_bytes(stored)}; one {gpu.name} gives the engine "
        f"{format_bytes(usable)} ({fit.args.gpu_memory_utilization:g} of {format_bytes(gpu.memory_bytes)}), "
        f"and a replica uses {winner.layout.world_size} of them."
    )


def _tensor(winner: Contender) -> str:
    spec, layout, link = winner.request.spec, winner.layout, winner.link
    per_token = ALL_REDUCES_PER_LAYER * spec.num_layers * all_reduce_bytes(spec, layout.tensor)
    return (
        f"Tensor parallel {layout.tensor}: every rank reads 1/{layout.tensor} of the weights, and sends "
        f"{format_bytes(per_token)} per token in {ALL_REDUCES_PER_LAYER * spec.num_layers} all-reduces, over "
        f"{link.name} at {link.bytes_per_s // 10**9} GB/s one way."
    )


def _pipeline(winner: Contender) -> str:
    spec, layout = winner.request.spec, winner.layout
    hop = spec.hidden_size * 2
    ranks = layout.tensor * layout.pipeline
    reduces = ALL_REDUCES_PER_LAYER * spec.num_layers
    return (
        f"Pipeline parallel {layout.pipeline}: fewer stages do not fit or leave too little KV cache. A "
        f"token crosses to the next stage once, with {format_bytes(hop)}; tensor parallel {ranks} would send "
        f"{format_bytes(reduces * all_reduce_bytes(spec, ranks))} in {reduces} all-reduces over the "
        f"{NETWORK.name} ({NETWORK.bytes_per_s // 10**9} GB/s a GPU is assumed)."
    )


def _experts(winner: Contender) -> str:
    spec, layout = winner.request.spec, winner.layout
    if spec.moe is None:
        raise AssertionError(f"{spec.name} has no experts")
    ranks = layout.tensor * layout.data
    if layout.expert:
        return (
            f"Expert parallel: {spec.moe.num_experts // ranks} whole experts on each of {ranks} ranks, "
            f"{spec.moe.intermediate_size} wide and not {spec.moe.intermediate_size / ranks:g}, which "
            "suits many tokens at once on 2 to 8 ranks. With one data rank tokens travel by the same "
            "all-reduce as in tensor parallel, so it sends nothing more."
        )
    if winner.request.objective == "latency":
        why = "one token's experts are then read by all ranks evenly, none waits for the busiest"
    elif layout.pipeline > 1:
        why = "a stage hands on when its busiest rank is done, and cut experts load all ranks alike"
    else:
        why = f"{spec.moe.num_experts} experts do not divide over {ranks} ranks of one fast group"
    return (
        f"No expert parallel: every expert is cut over {ranks} ranks "
        f"({spec.moe.intermediate_size / ranks:g} wide each); {why}."
    )


def _criteria(winner: Contender) -> Iterator[str]:
    yield f"Objective {winner.request.objective}, compared in this order:"
    for number, criterion in enumerate(CRITERIA[winner.request.objective], start=1):
        yield f"  {number}. {criterion.name}: {criterion.sentence(winner)}"


def _runner_up(found: Found, winner: Contender) -> Iterator[str]:
    second = next((contender for contender in found.contenders if contender is not winner), None)
    if second is None:
        yield "No other layout fits."
        return
    criterion = deciding(winner, second)
    if criterion is not None:
        yield f"The runner-up differs first in {criterion.name}: {criterion.sentence(second)}."


def _caveat(winner: Contender) -> str:
    return (
        "The bytes a pass moves are arithmetic that ranks layouts, not an estimate of speed: "
        f"{format_bytes(winner.traffic.read_bytes)} read and {format_bytes(winner.traffic.sent_bytes)} sent "
        f"for {winner.traffic.tokens} tokens."
    )
