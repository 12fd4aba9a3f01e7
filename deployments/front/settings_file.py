"""`front.yaml` in the state folder: what an operator may change about the front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.governance.access import Bounds
from orchestrator.errors import ConfigError

Origin = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:-]+$", max_length=255)]


class FrontFile(BaseModel):
    """Every field has a default; a browser's page may call only from one of `cors_origins`."""

    model_config = ConfigDict(extra="forbid")

    cors_origins: tuple[Origin, ...] = ()
    max_header_bytes: int = Field(default=64 * 1024, ge=1024, le=100 * 1024)
    max_json_depth: int = Field(default=Bounds.max_json_depth, ge=4, le=500)
    request_timeout_s: float = Field(default=Bounds.request_timeout_s, ge=1, le=86_400)
    idle_timeout_s: int = Field(default=300, ge=1, le=86_400)

    @property
    def bounds(self) -> Bounds:
        return Bounds(max_json_depth=self.max_json_depth, request_timeout_s=self.request_timeout_s)


def read_front_file(path: Path | None) -> FrontFile:
    """The settings of a file; the defaults where there is none. Raises `ConfigError` naming the field at fault."""
    if path is None or not path.exists():
        return FrontFile()
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return FrontFile.model_validate(document or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
