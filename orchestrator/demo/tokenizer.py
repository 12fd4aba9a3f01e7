"""Hugging Face tokenizer files from a GGUF file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.demo.checkpoint import write_json
from orchestrator.errors import ConfigError

_CONTROL_TOKEN = 3  # gguf's TokenType.CONTROL: a token that no text is split into
# GGUF keeps only the name of the rule by which text is cut into words before the merges. llama.cpp's "smollm"
# (src/llama-vocab.cpp) is GPT-2's rule after cutting out each digit, which is how SmolLM2 was trained.
_PRE_TOKENIZERS: Mapping[str, Mapping[str, object]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
}


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens and chat template."""

    tokens: tuple[str, ...]
    merges: tuple[str, ...]
    control_ids: tuple[int, ...]
    pre_tokenizer: Mapping[str, object]
    bos_id: int
    eos_id: int
    unknown_id: int
    pad_id: int
    chat_template: str
    context_length: int

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Raises `ConfigError` for a way of cutting words that is not known here."""
        kind = f"{metadata['tokenizer.ggml.model']}/{metadata['tokenizer.ggml.pre']}"
        pre_tokenizer = _PRE_TOKENIZERS.get(kind.removeprefix("gpt2/"))
        if pre_tokenizer is None:
            raise ConfigError(f"a GGUF tokenizer of kind {kind} cannot be converted; known: gpt2/smollm")
        types = metadata["tokenizer.ggml.token_type"]
        return cls(
            tokens=tuple(metadata["tokenizer.ggml.tokens"]),
            merges=tuple(metadata["tokenizer.ggml.merges"]),
            control_ids=tuple(index for index, kind in enumerate(types) if kind == _CONTROL_TOKEN),
            pre_tokenizer=pre_tokenizer,
            bos_id=metadata["tokenizer.ggml.bos_token_id"],
            eos_id=metadata["tokenizer.ggml.eos_token_id"],
            unknown_id=metadata["tokenizer.ggml.unknown_token_id"],
            pad_id=metadata["tokenizer.ggml.padding_token_id"],
            chat_template=metadata["tokenizer.chat_template"],
            context_length=metadata["llama.context_length"],
        )

    def document(self) -> dict[str, object]:
        """The content of `tokenizer.json`, as the `tokenizers` library reads it."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [self._special(index) for index in self.control_ids],
            "normalizer": None,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "vocab": {token: index for index, token in enumerate(self.tokens)},
                "merges": [merge.split(" ") for merge in self.merges],
            },
        }

    def config(self) -> dict[str, object]:
        """The content of `tokenizer_config.json`."""
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.tokens[self.bos_id],
            "eos_token": self.tokens[self.eos_id],
            "unk_token": self.tokens[self.unknown_id],
            "pad_token": self.tokens[self.pad_id],
            "model_max_length": self.context_length,
            "clean_up_tokenization_spaces": False,
            "chat_template": self.chat_template,
        }

    def token_ids(self) -> dict[str, object]:
        """The ids in `config.json` and `generation_config.json`; an answer ends at `eos_token_id`."""
        return {"bos_token_id": self.bos_id, "eos_token_id": self.eos_id, "pad_token_id": self.pad_id}

    def write(self, folder: Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `generation_config.json` into `folder`."""
        write_json(folder / "tokenizer.json", self.document())
        write_json(folder / "tokenizer_config.json", self.config())
        write_json(folder / "generation_config.json", self.token_ids())

    def _special(self, index: int) -> dict[str, object]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        return {"id": index, "content": self.tokens[index], **flags}
