"""The rule of thumb reproduces the sizing table; the exact figure confirms it or says why not.

total = parameters × bytes per parameter × 1.15 + KV budget, against nominal gigabytes
"""

from __future__ import annotations

import pytest

from orchestrator.catalog.registry import resolve_model
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Constraints
from orchestrator.planner import PlanRequest, Wishes, build_request
from orchestrator.planner.rule_of_thumb import BYTES_PER_PARAMETER, RuleOfThumb, disagreement, rule_of_thumb
from orchestrator.planner.search import search
from tests.unit.planner.helpers import fp8

# model, GPUs of the table's minimum, recommended and optimal rows (FP8), and one that must be too small.
TABLE = [
    ("mixtral-8x7b", ("1xH100", "2xH100", "2xH100"), "1xL40S"),
    ("mixtral-8x22b", ("3xH100", "4xH100", "4xH100"), "2xH100"),
    ("qwen2-57b-a14b", ("1xH100", "2xH100", "2xH200"), "1xL40S"),
    ("llama-4-maverick", ("6xH100", "8xH100", "4xH200"), "5xH100"),
    ("deepseek-v3.2", ("8xH200", "8xH200", "8xB200"), "8xH100"),
    ("kimi-k2", ("16xH100", "16xH200", "8xB200"), "8xH200"),
]


def asked(model: str, gpus: str, constraints: Constraints | None = None) -> PlanRequest:
    wishes = Wishes(arguments={**fp8(model), "max_model_len": 8192}, constraints=constraints or Constraints())
    return build_request(resolve_model(model), parse_gpus(gpus), wishes)


@pytest.mark.parametrize(("model", "rows", "too_small"), TABLE)
def test_the_rule_reproduces_every_row_of_the_table(model: str, rows: tuple[str, ...], too_small: str) -> None:
    assert [rule_of_thumb(asked(model, gpus)).fits for gpus in rows] == [True, True, True]
    assert not rule_of_thumb(asked(model, too_small)).fits


@pytest.mark.parametrize(("model", "rows", "too_small"), TABLE)
def test_the_exact_figure_confirms_every_row(model: str, rows: tuple[str, ...], too_small: str) -> None:
    for gpus in rows:
        assert search(asked(model, gpus)).winner is not None, gpus


def test_where_the_exact_figure_contradicts_the_rule_it_says_why() -> None:
    """Kimi K2 on 8 × H200 with a short context: no by the rule, yes in fact."""
    request = asked("kimi-k2", "8xH200")
    figures = rule_of_thumb(request)
    assert not figures.fits
    assert search(request).winner is not None
    why = disagreement(figures, True, request)
    assert why is not None
    assert "where the rule counts" in why
    assert disagreement(figures, False, request) is None


def test_the_kv_budget_is_that_of_the_requests_asked_for() -> None:
    """61 layers of 576 values in two bytes a token, once, whatever the layout."""
    figures = rule_of_thumb(asked("kimi-k2", "16xH100", Constraints(concurrency=4)))
    assert figures.kv_budget_bytes == 4 * 8192 * 61 * 576 * 2


def test_deepseek_leaves_340_gb_on_eight_h200_by_the_rule() -> None:
    figures = RuleOfThumb(685 * 10**9, 1.0, 0, 8 * 141 * 10**9)
    assert (figures.available_bytes - figures.total_bytes) / 1e9 == pytest.approx(340, abs=1)


def test_the_kv_budget_is_added_after_the_factor() -> None:
    figures = RuleOfThumb(100, 2.0, 7, 240)
    assert figures.total_bytes == 237
    assert figures.fits


def test_bytes_per_parameter_are_those_of_the_rule() -> None:
    expected = {"bfloat16": 2, "fp8": 1, "int8": 1, "int4": 0.5}
    assert {name: BYTES_PER_PARAMETER[name] for name in expected} == expected


def test_the_sentence_gives_the_sum_and_the_verdict() -> None:
    text = rule_of_thumb(asked("kimi-k2", "16xH100")).sentence()
    assert "× 1 byte × 1.15 =" in text
    assert "fits the nominal 1,280 GB" in text


def test_a_yes_above_what_the_engine_may_take_says_so() -> None:
    """Maverick on 6 × H100 sits at 96 % by the rule."""
    text = rule_of_thumb(asked("llama-4-maverick", "6xH100")).sentence()
    assert text.endswith("fits the nominal 480 GB at 96% of it, above the 0.9 that the engine may take")
    assert rule_of_thumb(asked("llama-4-maverick", "8xH100")).sentence().endswith("640 GB")
