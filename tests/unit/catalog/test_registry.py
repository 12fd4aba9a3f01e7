"""Models by name: the catalogue, a user's own file, and local folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.registry import load_catalog, resolve_model
from orchestrator.errors import ConfigError, UnknownModel

REQUIRED = (
    "kimi-k2",
    "deepseek-v3.2-speciale",
    "llama-4-maverick",
    "mixtral-8x22b",
    "mixtral-8x7b",
    "qwen2-57b-a14b",
    "llama-3-70b",
)
MIXTRAL: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}


def folder_with(path: Path, config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", load_catalog().names)
def test_every_entry_of_the_catalogue_resolves(name: str) -> None:
    """By its short name, and by the id of each checkpoint exactly that one."""
    catalog = load_catalog()
    found = catalog.find(name)
    assert found is not None
    assert resolve_model(name).checkpoint == found[0].default_checkpoint
    for checkpoint in found[0].checkpoints:
        assert resolve_model(checkpoint.hf_id).checkpoint == checkpoint.hf_id


def test_the_models_asked_for_are_there() -> None:
    """Short names of the requirements."""
    assert set(REQUIRED) <= set(load_catalog().names)


def test_a_short_name_takes_fp8_where_it_is_published_and_an_id_takes_itself() -> None:
    """Nothing is quantised silently: the entry says which checkpoint is the default, and how it is stored."""
    default, plain = resolve_model("mixtral-8x22b"), resolve_model("mistralai/Mixtral-8x22B-Instruct-v0.1")
    assert default.quantization is not None
    assert default.quantization.weight_format == "fp8"
    assert plain.quantization is None
    found = load_catalog().find("mixtral-8x22b")
    assert found is not None
    assert found[1].quantization == "FP8, one scale per matrix"


def test_presets_of_the_document_belong_to_the_models() -> None:
    """DeepSeek V3.2 on 8×H200 as the requirements state it."""
    found = load_catalog().find("deepseek-v3.2")
    assert found is not None
    (preset,) = found[0].presets
    assert (preset.gpu, preset.num_gpus) == ("H200", 8)
    assert preset.engine_args["kv_cache_dtype"] == "fp8"
    assert preset.engine_args["max_model_len"] == 32768
    assert preset.env == {"VLLM_USE_DEEP_GEMM": "1"}


def test_a_local_folder_or_its_config_is_a_model(tmp_path: Path) -> None:
    """The folder's name is the model's."""
    folder = folder_with(tmp_path / "smol-moe", MIXTRAL)
    assert resolve_model(str(folder)).name == "smol-moe"
    assert resolve_model(str(folder / "config.json")).num_layers == 2


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    """A folder alone says nothing."""
    with pytest.raises(ConfigError, match=r"is a folder without a config\.json"):
        resolve_model(str(tmp_path))


def test_a_file_of_300_megabytes_is_not_read(tmp_path: Path) -> None:
    """Weights given for a config are refused before they are read."""
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 300 * 10**6)
    with pytest.raises(ConfigError, match="has 300000000 bytes and is no config"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be an object"),
        ("[" * 100_000, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        ("\xff", "JSON"),
    ],
)
def test_a_file_that_is_no_object_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    """Broken and foreign files alike."""
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=said) as refused:
        resolve_model(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_an_unknown_name_gets_near_names() -> None:
    """A slip is met with what it may have meant."""
    with pytest.raises(UnknownModel, match="did you mean kimi-k2"):
        resolve_model("kimi-k3")


def own_file(folder: Path, **changes: Any) -> Path:
    entry = {
        "name": "our-moe",
        "hf_id": "us/our-moe",
        "checkpoints": [
            {
                "hf_id": "us/our-moe",
                "quantization": "BF16",
                "config": "our-moe.json",
                "sources": [{"where": "us", "date": "2026-11-01"}],
            }
        ],
        "default_checkpoint": "us/our-moe",
        **changes,
    }
    (folder / "our-moe.json").write_text(json.dumps(MIXTRAL))
    (folder / "models.json").write_text(json.dumps({"models": [entry]}))
    return folder / "models.json"


def test_a_users_file_adds_models(tmp_path: Path) -> None:
    """Its configs lie beside it."""
    catalog = load_catalog(own_file(tmp_path))
    assert resolve_model("our-moe", catalog).num_layers == 2
    assert resolve_model("kimi-k2", catalog).num_layers == 61


def test_a_users_file_replaces_models_of_the_same_name(tmp_path: Path) -> None:
    """The user's word counts."""
    assert resolve_model("kimi-k2", load_catalog(own_file(tmp_path, name="kimi-k2"))).num_layers == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"colour": "red"}, "models.0.colour"), ({"checkpoints": []}, "models.0.checkpoints")],
)
def test_a_wrong_key_in_a_users_file_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """One line with the path of the field."""
    with pytest.raises(ConfigError, match=said) as refused:
        load_catalog(own_file(tmp_path, **changes))
    assert "\n" not in str(refused.value)
