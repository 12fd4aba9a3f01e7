"""Hugging Face's keys that all architectures share. Together with `architectures.py`, `vision.py` and
`read_quantization.py` it is the one translator: no other module reads a key of `config.json`.
"""

from __future__ import annotations

from orchestrator.catalog.architectures import READERS
from orchestrator.catalog.fields import Fields
from orchestrator.catalog.shapes import Body
from orchestrator.errors import ConfigError, UnknownArchitecture

DTYPES = ("bfloat16", "float16", "float32")


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
    if kind in ("default", "su", "longrope", "llama3", "mrope"):
        return longest
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
    return reader(text)
