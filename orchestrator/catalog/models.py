"""What a model is, as far as memory and layout are concerned: frozen facts, translated from `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.fields import Fields
from orchestrator.catalog.quantization import Quantization
from orchestrator.catalog.read_quantization import read_quantization
from orchestrator.catalog.shapes import Attention, DecoderLayer, MoE, VisionTower
from orchestrator.catalog.translate import read_architecture, read_body, read_dtype, read_max_model_len
from orchestrator.catalog.vision import read_vision


@dataclass(frozen=True)
class ModelSpec:
    """One model: shapes, layers, stored types."""

    name: str
    architecture: str
    hidden_size: int
    vocab_size: int
    layers: tuple[DecoderLayer, ...]
    attention: Attention
    # Width of a dense layer's MLP; 0 where there is none.
    intermediate_size: int
    moe: MoE | None
    tie_word_embeddings: bool
    # The type of what is not quantised: bfloat16, float16 or float32.
    dtype: str
    # The longest context by the model's own config, rope scaling included.
    max_model_len: int
    quantization: Quantization | None = None
    mlp_bias: bool = False
    # Multi-token-prediction layers of the checkpoint; loaded only for speculative decoding.
    num_mtp_layers: int = 0
    # Some of vLLM's classes build embeddings, head and last norm on every pipeline stage.
    ends_on_every_stage: bool = False
    # The checkpoint's name for a sparse layer's feed-forward, and for the parent of all layers.
    moe_module: str = "mlp"
    prefix: str = "model"
    vision: VisionTower | None = None
    source: str = "config.json"
    # Hugging Face id or local path of the weights.
    checkpoint: str = ""

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def __hash__(self) -> int:
        return hash((self.name, self.architecture, self.source, self.hidden_size, len(self.layers)))

    @property
    def is_moe(self) -> bool:
        return self.moe is not None

    @staticmethod
    def from_hf(config: Mapping[str, Any], *, name: str, source: str) -> ModelSpec:
        """Translate a Hugging Face `config.json`.

        Raises `ConfigError` for a missing or malformed field and `UnknownArchitecture` for a model class
        whose shapes are not known here.
        """
        whole = Fields(config, source)
        text = whole.part("text_config") or whole
        architecture = read_architecture(whole)
        body = read_body(architecture, text)
        return ModelSpec(
            name=name,
            architecture=architecture,
            hidden_size=text.size("hidden_size"),
            vocab_size=text.size("vocab_size"),
            layers=body.layers,
            attention=body.attention,
            intermediate_size=body.intermediate_size,
            moe=body.moe,
            tie_word_embeddings=text.flag("tie_word_embeddings", whole.flag("tie_word_embeddings", False)),
            dtype=read_dtype(whole, text),
            max_model_len=read_max_model_len(text),
            quantization=read_quantization(whole, text),
            mlp_bias=body.mlp_bias,
            num_mtp_layers=body.num_mtp_layers,
            ends_on_every_stage=body.ends_on_every_stage,
            moe_module=body.moe_module,
            vision=read_vision(architecture, whole),
            prefix="model" if text is whole else "language_model.model",
            source=source,
        )
