"""What the front and the replicas tell each other about limits.

The front shares out what a key may use; a replica spends of its lease without asking, and asks when the lease is
short. The rules that keep the sum right whatever messages are lost or late:

* A replica tells running sums since it began, never differences: telling twice counts once.
* A lease grows by the front's word only, and shrinks by the replica's only, before it tells so. What the front believes
  to be leased is therefore never less than what is.
* A replica's messages are numbered; the front drops one that was overtaken.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

REQUESTS, TOKENS, CONCURRENT = "requests", "tokens", "concurrent"
RESOURCES = (REQUESTS, TOKENS, CONCURRENT)
# What the replicas of all models together may hold of a limit unspent. It is the most by which a request can be
# refused too early; nothing is let in too much by it.
LEASED_SHARE = 0.04

_Count = Field(default=0, ge=0, le=10**18)


class Told(BaseModel):
    """One resource of one key as a replica sees it.

    spent: used since the replica began; held: promised to requests that run; allowed: how far `spent` + `held` may go;
    want, need: what it would like to have beyond `spent` + `held`, and what helps it at all.
    """

    model_config = ConfigDict(extra="forbid")

    spent: int = _Count
    held: int = _Count
    allowed: int = _Count
    want: int = _Count
    need: int = _Count


class KeyReport(BaseModel):
    """One key at one replica: the sums since the replica began, and its leases by resource."""

    model_config = ConfigDict(extra="forbid")

    requests: int = _Count
    tokens_in: int = _Count
    tokens_out: int = _Count
    leases: dict[str, Told] = {}


class LeaseReport(BaseModel):
    """Everything a replica has to tell about keys. `session` is its own since it began."""

    model_config = ConfigDict(extra="forbid")

    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    model: str = Field(max_length=255)
    number: int = Field(ge=0)
    keys: dict[str, KeyReport] = {}


class Granted(BaseModel):
    """One resource of one key, as the front answers.

    allowed: how far `spent` + `held` may go; keep: what to keep unspent; remaining: what is free for all, with this
    replica's lease; reset_s: until all of the limit is free; wait_s: until `need` is; budget: the one that is used up.
    """

    allowed: int
    keep: int
    remaining: int
    reset_s: float
    wait_s: float
    budget: str | None = None


class LeaseAnswer(BaseModel):
    """The front's answer: replicas that share, and leases by key and resource. `known` false: overtaken, not read."""

    known: bool = True
    replicas: int = 1
    leases: dict[str, dict[str, Granted]] = {}
