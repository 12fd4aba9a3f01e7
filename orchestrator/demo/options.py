"""What a person may choose about a demo model, and the folder name that each choice gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import ConfigError

Dtype = Literal["bfloat16", "float32"]
_SHORT_DTYPE: Mapping[str, str] = {"bfloat16": "bf16", "float32": "f32"}


class DemoOptions(BaseModel):
    """Options of every demo model. The same options always give the same bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, lt=2**32, description="seed of everything random")
    dtype: Dtype = Field("bfloat16", description="how the weights are stored")
    router_skew: float = Field(
        0.0,
        ge=0,
        le=32,
        description="router logits by which expert 0 is preferred over the last, evenly falling",
    )

    @property
    def shape_slug(self) -> str:
        """The part of the folder name that tells the shape; empty where the shape is fixed."""
        return ""

    @property
    def slug(self) -> str:
        """`4x2-bf16-seed0`, `bf16-seed7-skew1.5`: one spelling for each set of options."""
        skew = f"skew{self.router_skew!r}" if self.router_skew else ""
        parts = (self.shape_slug, _SHORT_DTYPE[self.dtype], f"seed{self.seed}", skew)
        return "-".join(part for part in parts if part)


class SmolMoeOptions(DemoOptions):
    """Options of `smol-moe`: how many experts there are, and how many of them each token visits."""

    num_experts: int = Field(4, ge=2, le=64)
    experts_per_token: int = Field(2, ge=1, le=64)

    @property
    def shape_slug(self) -> str:
        return f"{self.num_experts}x{self.experts_per_token}"

    @model_validator(mode="after")
    def _a_token_visits_existing_experts(self) -> SmolMoeOptions:
        if self.experts_per_token > self.num_experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is more than num_experts {self.num_experts}")
        return self


class KimiK2MiniOptions(DemoOptions):
    """Options of `kimi-k2-mini`, whose shape is fixed."""


OptionsT = TypeVar("OptionsT", bound=DemoOptions)


def parse_options(kind: type[OptionsT], values: Mapping[str, object], *, model: str) -> OptionsT:
    """The options in `values`, the rest by default.

    Raises `ConfigError` naming the option, what is wrong with it, and which options there are.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as failure:
        first = failure.errors()[0]
        named = f"option {first['loc'][0]!r} of" if first["loc"] else "options of"
        wrong = "there is no such option" if first["type"] == "extra_forbidden" else first["msg"]
        known = ", ".join(kind.model_fields)
        raise ConfigError(f"{named} {model}: {wrong} (options: {known})") from None
