"""An engine's files and no others: one set of weights, what describes them, and code only where it is wanted."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights.selection import small_files, weight_files

NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "tiktoken.model",
    "chat_template.jinja", "additional_chat_templates/tools.jinja", "tokenization_kimi.py", "README.md",
    ".gitattributes", "figures/banner.png", "original/params.json", "model-1.safetensors", "pytorch_model.bin",
)  # fmt: skip


def test_configuration_tokenizer_and_templates_are_needed_and_nothing_else() -> None:
    assert set(small_files(NAMES, remote_code=False)) == {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "tiktoken.model",
        "chat_template.jinja", "additional_chat_templates/tools.jinja",
    }  # fmt: skip


def test_code_comes_only_where_it_is_wanted() -> None:
    code = set(small_files(NAMES, remote_code=True)) - set(small_files(NAMES, remote_code=False))
    assert code == {"tokenization_kimi.py"}


def test_the_index_decides_which_weights_there_are() -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    there = ("model-1.safetensors", "model-2.safetensors", "model.safetensors", "consolidated.safetensors")
    assert weight_files(there, index) == ("model-1.safetensors", "model-2.safetensors")


def test_without_an_index_the_second_copy_of_mistral_is_left_out() -> None:
    """vLLM takes a folder with `consolidated*` for one in Mistral's own format."""
    assert weight_files(("model.safetensors", "consolidated.safetensors", "original/model.safetensors"), None) == (
        "model.safetensors",
    )
    assert weight_files(("consolidated.safetensors",), None) == ("consolidated.safetensors",)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": 3}', '{"weight_map": {}}', "{}"])
def test_an_index_that_names_nothing_is_refused(index: str) -> None:
    with pytest.raises(CheckpointUnavailable, match=r"model\.safetensors\.index\.json names no"):
        weight_files(("model.safetensors",), index)


def test_a_shard_that_is_not_published_is_named() -> None:
    with pytest.raises(CheckpointUnavailable, match=r"names model-9\.safetensors, which is not published"):
        weight_files(("a.safetensors",), json.dumps({"weight_map": {"a": "model-9.safetensors"}}))


def test_weights_in_another_format_are_named() -> None:
    with pytest.raises(CheckpointUnavailable, match=r"no weights .*its weights are \*\.bin"):
        weight_files(("config.json", "pytorch_model.bin"), None)
