"""Hugging Face's keys that all architectures share. Together with `architectures.py`, `vision.py` and
`read_quantization.py` it is the one translator: no other module reads a key of `config.json`.
"""

from __future__ import annotations

from orchestrator.catalog.architectures import READERS
from orchestrator.catalog.fields import Fields
from orchestrator.catalog.shapes import Body, GroupedAttention
from orchestrator.errors import ConfigError, UnknownArchitecture

DTYPES = ("bfloat16", "float16", "float32")
# Kinds of rope scaling (`get_rope` of vLLM): those that leave the longest context as the config states it, ...
ROPE_AS_STATED = ("default", "su", "longrope", "llama3", "mrope")
# ... and those that stretch it by their factor.
ROPE_STRETCHED = (
    "yarn", "linear", "dynamic", "ntk", "xdrope", "mllama4", "proportional", "deepseek_yarn", "deepseek_llama_scaling",
    "openpangu", "telechat3-yarn",
)  # fmt: skip


def read_architecture(whole: Fields) -> str:
    names = whole.items("architectures")
    if not names or not isinstance(names[0], str):
        raise ConfigError(f"{whole.source}: architectures is missing; it must name the model class")
    return names[0]


def read_dtype(whole: Fields, text: Fields) -> str:
    """The type of unquantised weights. vLLM runs float32 checkpoints in bfloat16, and so does this."""
    names = ("dtype", "torch_dtype")
    stored = text.text(*names, default=whole.text(*names, default="bfloat16"))
    if stored not in DTYPES:
        raise ConfigError(f"{whole.source}: dtype is {stored!r}; it must be one of {', '.join(DTYPES)}")
    return "bfloat16" if stored == "float32" else stored


def read_max_model_len(text: Fields) -> int:
    """The longest context, by vLLM's rule: yarn stretches the original length by its factor."""
    longest = text.size("max_position_embeddings", "model_max_length", "max_sequence_length", default=2048)
    scaling = text.part("rope_scaling") or text.part("rope_parameters")
    if scaling is None:
        return longest
    kind = scaling.text("rope_type", "type", default="default")
    if kind in ROPE_AS_STATED:
        return longest
    if kind not in ROPE_STRETCHED:
        known = ", ".join((*ROPE_AS_STATED, *ROPE_STRETCHED))
        raise ConfigError(f"{scaling.source}: rope_type {kind!r} is not known here; known are {known}")
    if kind == "yarn":
        longest = scaling.size("original_max_position_embeddings", default=longest)
    return int(longest * scaling.number("factor", 1.0))


def read_body(architecture: str, text: Fields) -> Body:
    """Raises `UnknownArchitecture` where the class is not in `READERS`."""
    reader = READERS.get(architecture)
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise UnknownArchitecture(
            f"{text.source}: architecture {architecture} is not known here, and its shapes are not guessed; "
            f"known are {known}"
        )
    body = reader(text)
    _check(body, text)
    return body


def _check(body: Body, text: Fields) -> None:
    """What no engine could run, and what would otherwise be counted as if it could."""
    if body.moe is not None and body.moe.top_k > body.moe.num_experts:
        raise ConfigError(f"{text.source}: {body.moe.top_k} experts a token, but the model has {body.moe.num_experts}")
    attention = body.attention
    if isinstance(attention, GroupedAttention) and attention.num_heads % attention.num_kv_heads:
        raise ConfigError(
            f"{text.source}: num_attention_heads is {attention.num_heads}; it must be a multiple of "
            f"num_key_value_heads, {attention.num_kv_heads}"
        )
