"""What may be said at the front's inner door."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.front_link import Announcement

# What a line of HAProxy's map can hold: no spaces, no comment.
Name = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./:@+-]*$")]

# More GPUs than one replica of any model takes.
MAX_RANKS = 4096


class Heartbeat(BaseModel):
    """A replica's announcement and how much it is doing."""

    model_config = ConfigDict(extra="forbid")

    deployment: Name
    replica: str = Field(max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")
    names: tuple[Name, ...] = Field(min_length=1)
    host: str = Field(max_length=255, pattern=r"^[A-Za-z0-9_.:-]+$")
    port: int = Field(ge=1, le=65535)
    auth: bool
    max_model_len: int
    created: int
    in_flight: int
    ranks: tuple[dict[str, Any], ...] = Field(default=(), max_length=MAX_RANKS)
    rehearsal: bool = False

    def announcement(self) -> Announcement:
        return Announcement(**self.model_dump(exclude={"in_flight"}))


class Told(BaseModel):
    """One event of an engine that starts."""

    model_config = ConfigDict(extra="forbid")

    deployment: str = Field(max_length=63)
    replica: str = Field(max_length=200)
    kind: str = Field(max_length=63)
    detail: dict[str, Any] = {}
