"""Models from the hub: asked for last, by their config alone, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, UnknownModel
from orchestrator.probes.hugging_face import Download, find_model

DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}


def hub(folder: Path, files: dict[str, object]) -> Download:
    """A hub that has exactly these files, for any id."""

    def download(hf_id: str, name: str, _revision: str | None) -> Path:
        if name not in files:
            raise ConfigError(f"{hf_id} has no {name}")
        path = folder / name
        path.write_text(json.dumps(files[name]))
        return path

    return download


def refuse(hf_id: str, _name: str, _revision: str | None) -> Path:
    raise AssertionError(f"the hub was asked for {hf_id}")


def test_the_hub_is_not_asked_for_what_the_catalogue_knows() -> None:
    """Catalogue first, and by any case of letters."""
    assert find_model("kimi-k2", download=refuse).checkpoint == "moonshotai/Kimi-K2-Instruct"
    assert find_model("MOONSHOTAI/kimi-k2-instruct", download=refuse).name == "kimi-k2"


def test_an_unknown_id_is_read_from_its_config(tmp_path: Path) -> None:
    """The id names the model and its checkpoint."""
    spec = find_model("someone/a-model", download=hub(tmp_path, {"config.json": DENSE}))
    assert (spec.name, spec.checkpoint, spec.num_layers) == ("someone/a-model", "someone/a-model", 2)


def test_a_scheme_beside_the_config_is_read(tmp_path: Path) -> None:
    """ModelOpt's FP4 checkpoints say so in hf_quant_config.json."""
    scheme = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    files = {"config.json": DENSE, "hf_quant_config.json": scheme}
    spec = find_model("someone/a-model-fp4", download=hub(tmp_path, files))
    assert spec.quantization is not None
    assert spec.quantization.method == "modelopt_fp4"


def test_a_name_that_is_no_id_is_not_looked_up() -> None:
    """A misspelt short name gets near names instead of a request."""
    with pytest.raises(UnknownModel, match="kimi-k2"):
        find_model("kimi-k3", download=refuse)


def test_an_id_without_a_config_is_refused(tmp_path: Path) -> None:
    """No config.json, no model."""
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        find_model("someone/empty", download=hub(tmp_path, {}))
