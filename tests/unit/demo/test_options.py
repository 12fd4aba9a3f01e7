"""Options of the demo models: checked by name, and each set of them has a folder of its own."""

from __future__ import annotations

import pytest

from orchestrator.demo.models import DEMO_MODELS, find_model
from orchestrator.errors import ConfigError, UnknownModel

SMOL, KIMI = DEMO_MODELS["smol-moe"], DEMO_MODELS["kimi-k2-mini"]


def test_the_default_folders_tell_shape_dtype_and_seed() -> None:
    assert SMOL.folder_name(SMOL.options({})) == "smol-moe-4x2-bf16-seed0"
    assert KIMI.folder_name(KIMI.options({})) == "kimi-k2-mini-bf16-seed0"


@pytest.mark.parametrize(
    "changed",
    [{"num_experts": 8}, {"experts_per_token": 1}, {"seed": 1}, {"dtype": "float32"}, {"router_skew": 1.5}],
)
def test_every_option_changes_the_folder(changed: dict[str, object]) -> None:
    assert SMOL.folder_name(SMOL.options(changed)) != SMOL.folder_name(SMOL.options({}))


def test_the_same_value_spelled_otherwise_is_the_same_folder() -> None:
    as_text, as_number = (
        SMOL.options({"router_skew": "2", "seed": "3"}),
        SMOL.options({"router_skew": 2.0, "seed": 3}),
    )
    assert SMOL.folder_name(as_text) == SMOL.folder_name(as_number)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"experts": 8}, r"option 'experts' of smol-moe: there is no such option .*num_experts"),
        ({"num_experts": 1}, r"option 'num_experts' of smol-moe: .*greater than or equal to 2"),
        ({"dtype": "fp8"}, r"option 'dtype' of smol-moe: .*'bfloat16' or 'float32'"),
        ({"experts_per_token": 5}, r"experts_per_token 5 is more than num_experts 4"),
        ({"router_skew": float("nan")}, r"option 'router_skew' of smol-moe"),
    ],
)
def test_a_wrong_option_is_named_with_the_way_out(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        SMOL.options(values)
    assert "\n" not in str(failure.value)


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownModel, match="did you mean smol-moe"):
        find_model("smolmoe")
    with pytest.raises(UnknownModel, match="there are smol-moe and kimi-k2-mini"):
        find_model("gpt")
