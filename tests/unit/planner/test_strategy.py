"""The strategies people expect come out as recommendations, each for a stated reason."""

from __future__ import annotations

import pytest

from orchestrator.errors import NoFeasiblePlan
from orchestrator.plan import Constraints, Plan
from orchestrator.planner.reasons import explain
from orchestrator.planner.search import search
from tests.unit.planner.helpers import ask, codes, fp8, planned


def recommended(model: str, gpus: str, **options: object) -> Plan:
    return planned(model, gpus, **fp8(model), **options)


@pytest.mark.parametrize(
    ("model", "gpus", "label"),
    [
        ("mixtral-8x7b", "2xH100", "TP 2 + EP"),
        ("deepseek-v3.2", "8xH200", "TP 8 + EP"),
        ("kimi-k2", "16xH100", "TP 8 × PP 2"),
        ("mixtral-8x22b", "4xA100-80G", "TP 4 + EP"),
        ("mixtral-8x22b", "4xA100-80G-PCIe", "TP 4 + EP"),
        ("deepseek-v3.2-speciale", "8xH200", "TP 8 + EP"),
    ],
)
def test_the_strategy_table_is_what_is_recommended(model: str, gpus: str, label: str) -> None:
    assert recommended(model, gpus).parallelism.label() == label


def test_expert_parallel_on_pcie_comes_with_the_advice_to_measure() -> None:
    assert "measure_expert_parallel_on_pcie" in codes(recommended("mixtral-8x22b", "4xA100-80G-PCIe"))
    assert "measure_expert_parallel_on_pcie" not in codes(recommended("mixtral-8x22b", "4xA100-80G"))


def test_kimi_k2_fits_sixteen_h100_and_not_eight() -> None:
    """Its 16 × 80 GB deployment at TP 8 × PP 2 is known to start; eight hold half of the weights."""
    plan = recommended("kimi-k2", "16xH100")
    assert {rank.node for rank in plan.ranks if rank.pipeline_stage == 0} == {"node-0"}
    assert {rank.node for rank in plan.ranks if rank.pipeline_stage == 1} == {"node-1"}
    with pytest.raises(NoFeasiblePlan, match=r"short.*1 more node of 8 × H100"):
        recommended("kimi-k2", "8xH100")


def test_a_plan_with_little_room_is_called_a_smoke_test() -> None:
    """16 × H100 are the least that holds Kimi K2; 16 × H200 serve it with room to spare."""
    assert "smoke_test" in codes(recommended("kimi-k2", "16xH100"))
    assert not {"smoke_test", "between_smoke_test_and_production"} & codes(recommended("kimi-k2", "16xH200"))


def test_latency_cuts_experts_and_cost_takes_the_fewest_gpus() -> None:
    assert recommended("mixtral-8x7b", "8xH100", objective="latency").parallelism.label() == "TP 8"
    assert recommended("mixtral-8x7b", "8xH100", objective="cost").parallelism.label() == "TP 1"
    assert recommended("mixtral-8x7b", "8xH100", objective="throughput").parallelism.label() == "TP 8 + EP"


def test_constraints_change_the_choice() -> None:
    """Kimi K2 fits one node of H200s for a single request, and needs two for thirty-two of them."""
    few = Constraints(gpus=8)
    many = Constraints(concurrency=32)
    assert recommended("kimi-k2", "16xH200", constraints=few).parallelism.num_gpus == 8
    assert recommended("kimi-k2", "16xH200", constraints=many).parallelism.num_gpus == 16
    with pytest.raises(NoFeasiblePlan, match="32 requests of"):
        recommended("kimi-k2", "8xH200", constraints=many)


def test_a_longer_context_can_need_more_gpus() -> None:
    degrees = {"tensor_parallel_size": 8, "pipeline_parallel_size": 1}
    assert recommended("kimi-k2", "8xH200", max_model_len=32_768, **degrees).kv_cache.capacity_tokens > 32_768
    with pytest.raises(NoFeasiblePlan, match=r"tokens would fit. It would fit with.*maximum length of"):
        recommended("kimi-k2", "8xH200", max_model_len=131_072, **degrees)


def test_pipeline_stages_are_for_when_memory_binds() -> None:
    assert recommended("deepseek-v3.2", "16xH200").parallelism.pipeline == 1


def test_pipeline_stages_are_warned_of_for_interactive_use() -> None:
    assert "pipeline_for_interactive_use" in codes(recommended("kimi-k2", "16xH100", objective="latency"))


def test_six_h100_hold_maverick_only_in_stages_and_barely() -> None:
    """40 heads and 8 key-value heads do not divide by 6, so "6 × H100" means stages, and they are full."""
    plan = recommended("llama-4-maverick", "6xH100")
    assert plan.parallelism.pipeline > 1
    assert "smoke_test" in codes(plan)
    reasons = {(entry.parallelism.tensor, entry.code) for entry in plan.rejected}
    assert (6, "heads_not_divisible") in reasons


def test_mixtral_8x22b_on_three_gpus_needs_stages() -> None:
    assert recommended("mixtral-8x22b", "3xH100").parallelism.label() == "TP 1 × PP 3"


def test_a_70b_model_in_16_bits_does_not_fit_one_h100() -> None:
    with pytest.raises(NoFeasiblePlan, match="llama-3-70b"):
        planned("meta-llama/Meta-Llama-3-70B-Instruct", "1xH100-PCIe")


def test_data_parallel_attention_is_named_but_not_recommended() -> None:
    plan = recommended("deepseek-v3.2", "8xH200")
    entries = [entry for entry in plan.rejected if entry.code == "data_parallel_not_deployable"]
    assert {entry.parallelism.data for entry in entries} == {2, 4, 8}
    assert plan.parallelism.data == 1


def test_asked_for_data_parallel_attention_is_planned_with_a_warning() -> None:
    plan = recommended("deepseek-v3.2", "8xH200", data_parallel_size=8, enable_expert_parallel=True)
    assert (plan.parallelism.tensor, plan.parallelism.data) == (1, 8)
    assert plan.engine.args["data_parallel_size"] == 8
    assert "data_parallel_attention" in codes(plan)


def test_cut_fp8_blocks_are_refused_and_whole_experts_chosen() -> None:
    """1536 wide experts over 8 ranks are 192 wide: no multiple of the FP8 block of 128."""
    plan = recommended("qwen3-235b-a22b", "8xH100")
    assert plan.parallelism.label() == "TP 8 + EP"
    (cut,) = [entry for entry in plan.rejected if entry.parallelism.label() == "TP 8"]
    assert cut.code == "fp8_block_cut"
    assert "192 wide" in cut.reason


def test_each_loser_keeps_its_code_and_a_sentence_with_numbers() -> None:
    plan = recommended("deepseek-v3.2", "8xH200")
    for entry in plan.rejected:
        assert entry.code.replace("_", "").isalpha()
        assert any(character.isdigit() for character in entry.reason), entry


def test_the_choice_is_explained_by_the_bytes_it_moves() -> None:
    request = ask("kimi-k2", "16xH100")
    found = search(request)
    assert found.winner is not None
    text = "\n".join(explain(found, found.winner))
    assert "all-reduces" in text
    assert "not an estimate of speed" in text
    assert "runner-up" in text


def test_no_feasible_plan_names_the_nearest_miss_and_what_was_found_to_work() -> None:
    with pytest.raises(NoFeasiblePlan) as failure:
        planned("mixtral-8x22b-base", "2xH100")
    text = str(failure.value)
    assert "GiB short" in text
    assert "FP8 weights" in text
    assert "1 more node of 2 × H100" in text
    assert "\n" not in text
    assert failure.value.reasons


def test_the_ways_out_really_work() -> None:
    """What the message for Mixtral 8x22B on two H100s suggests is planned without complaint."""
    assert planned("mixtral-8x22b-base", "2xH100", quantization="fp8").parallelism.num_gpus == 2
