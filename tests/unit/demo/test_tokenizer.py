"""Tokenizer files say what the GGUF metadata says, in Hugging Face's terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo.tokenizer import Tokenizer
from orchestrator.errors import ConfigError

METADATA: dict[str, Any] = {
    "llama.context_length": 8192,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", "t", "Ġt"],
    "tokenizer.ggml.token_type": [3, 3, 3, 1, 1, 1],
    "tokenizer.ggml.merges": ["Ġ t"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{{ messages }}",
}


def test_vocabulary_merges_and_special_tokens_are_taken_over() -> None:
    document: Any = Tokenizer.from_gguf(METADATA).document()
    assert document["model"]["vocab"]["Ġt"] == 5
    assert document["model"]["merges"] == [["Ġ", "t"]]
    assert [token["content"] for token in document["added_tokens"]] == [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
    ]


def test_each_digit_is_a_word_of_its_own() -> None:
    document: Any = Tokenizer.from_gguf(METADATA).document()
    assert document["pre_tokenizer"]["pretokenizers"][0] == {"type": "Digits", "individual_digits": True}


def test_an_answer_ends_at_the_end_of_a_message(tmp_path: Path) -> None:
    Tokenizer.from_gguf(METADATA).write(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == 2
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["chat_template"]) == ("<|im_end|>", "{{ messages }}")


@pytest.mark.parametrize("key", ["tokenizer.ggml.model", "tokenizer.ggml.pre"])
def test_a_tokenizer_of_another_kind_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=r"of kind .*other.* cannot be converted; known: gpt2/smollm"):
        Tokenizer.from_gguf({**METADATA, key: "other"})
