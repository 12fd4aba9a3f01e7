"""Signs of life of an engine's processes, and what their absence means. Pure: time and beats are handed in.

Every process of an engine, its core and each rank, tells once a second how it is (`pulse.py`). From that:

    closed        the process ended: its kernel closed the connection
    silent        nothing was heard for a while: stopped, its node lost, or the network between
    stuck step    the core began a step and does not end it while no rank computes, or for very long
    stuck load    while loading, no process computes, grows or reads any more
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel, ConfigDict, Field

# A busy process that loads may hold the interpreter for seconds; one that serves does not.
SILENT_SERVING_S = 6.0
SILENT_LOADING_S = 20.0
STUCK_LOAD_S = 25.0
# Ranks that wait for others which are still starting: importing an engine takes long from a slow disk.
UNHEARD_S = 90.0
# A core whose ranks do not even begin: Ray starts their processes, and each imports the engine.
NOT_BEGUN_S = 180.0
# An engine that fails to load ends its processes and tells why: let it.
CLOSED_LOADING_S = 5.0
# A step of an engine takes milliseconds, of a large prefill a second or two. One that takes longer is stuck if no rank
# computes meanwhile; if one does, a kernel may be compiling, or CPUs stand in for GPUs, and it gets long.
STUCK_STEP_S = 8.0
ENDLESS_STEP_S = 120.0
# What counts as doing something from one beat to the next. Telling a beat costs a little of each itself: it reads
# a few KiB of /proc.
ACTIVE_CPU_S = 0.05
ACTIVE_MEMORY_BYTES = 1024**2
ACTIVE_READ_BYTES = 64 * 1024

CORE = -1


class Beat(BaseModel):
    """How one process is. `rank` is `CORE` for the engine's core; `step_s` how long its present step has taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=CORE, le=100_000)
    node: str = Field(max_length=255)
    pid: int
    cpu_s: float
    memory_bytes: int
    read_bytes: int
    step_s: float | None = None
    # The innermost Python frame of its main thread.
    doing: str = Field(default="", max_length=300)

    @property
    def who(self) -> str:
        name = "the engine's core" if self.rank == CORE else f"rank {self.rank}"
        return f"{name} on {self.node} (process {self.pid})"


@dataclass(frozen=True)
class Limits:
    """How long, in seconds, each kind of absence is borne."""

    silent_serving_s: float = SILENT_SERVING_S
    silent_loading_s: float = SILENT_LOADING_S
    closed_loading_s: float = CLOSED_LOADING_S
    stuck_load_s: float = STUCK_LOAD_S
    unheard_s: float = UNHEARD_S
    not_begun_s: float = NOT_BEGUN_S
    stuck_step_s: float = STUCK_STEP_S
    endless_step_s: float = ENDLESS_STEP_S


@dataclass
class _Member:
    beat: Beat
    heard_s: float
    active_s: float


@dataclass
class Vitals:
    """All processes of one replica's engine."""

    limits: Limits = field(default_factory=Limits)
    # The node of each rank, where a plan tells.
    expected: Mapping[int, str] = field(default_factory=dict)
    loading: bool = True
    _begun_s: float | None = None
    _members: dict[int, _Member] = field(default_factory=dict)
    _closed: list[_Member] = field(default_factory=list)

    def hear(self, beat: Beat, now_s: float) -> None:
        """A beat came in."""
        self._begun_s = now_s if self._begun_s is None else self._begun_s
        known = self._members.get(beat.rank)
        active = known is None or _is_active(known.beat, beat)
        self._members[beat.rank] = _Member(beat, now_s, now_s if active or known is None else known.active_s)

    def closed(self, rank: int, now_s: float) -> None:
        """A process's connection ended."""
        if (member := self._members.pop(rank, None)) is not None:
            self._closed.append(replace(member, heard_s=now_s))

    def serving(self, now_s: float) -> None:
        """The engine is up: from now on the limits of serving hold, counted from now."""
        self.loading = False
        self._members = {rank: replace(member, heard_s=now_s) for rank, member in self._members.items()}

    def trouble(self, now_s: float) -> str | None:
        """What is wrong, in a sentence that names who; None while all is well."""
        borne_s = self.limits.closed_loading_s if self.loading else 0.0
        if self._closed and now_s - self._closed[0].heard_s >= borne_s:
            return f"{self._first_cause([member.beat for member in self._closed]).who} died"
        silent_s = self.limits.silent_loading_s if self.loading else self.limits.silent_serving_s
        silent = [member for member in self._members.values() if now_s - member.heard_s > silent_s]
        if silent:
            longest = min(silent, key=lambda member: (member.heard_s, member.beat.rank))
            others = f"; silent too: {len(silent) - 1} more" if len(silent) > 1 else ""
            return (
                f"{longest.beat.who} has given no sign of life for {now_s - longest.heard_s:.0f} s "
                f"(stopped, its node lost, or the network between){others}"
            )
        return self._stuck_load(now_s) if self.loading else self._stuck_step(now_s)

    def _stuck_load(self, now_s: float) -> str | None:
        """Ranks wait for one another while they load: only when nobody does anything is something wrong."""
        ranks = [member for rank, member in self._members.items() if rank != CORE]
        waited_s = 0.0 if self._begun_s is None else now_s - self._begun_s
        if not ranks and self.expected and waited_s > self.limits.not_begun_s:
            return f"no rank has begun within {waited_s:.0f} s{self._unheard()}"
        idle = [now_s - member.active_s for member in ranks]
        limit_s = self.limits.unheard_s if set(self.expected) - set(self._members) else self.limits.stuck_load_s
        if not idle or min(idle) < limit_s:
            return None
        stuck = f"no rank has computed or read anything for {min(idle):.0f} s while loading: {self._doings()}"
        return f"{stuck}{self._unheard()}"

    def _unheard(self) -> str:
        """Ranks that have not been heard of at all: their node does not reach this one, or did not start them."""
        missing = sorted(set(self.expected) - set(self._members))
        if not missing:
            return ""
        nodes = ", ".join(dict.fromkeys(self.expected[rank] for rank in missing))
        return (
            f"; never heard of: {_ranks(missing)} on {nodes} (a firewall between the nodes? They need all ports to one "
            "another)"
        )

    def _stuck_step(self, now_s: float) -> str | None:
        core = self._members.get(CORE)
        if core is None or core.beat.step_s is None:
            return None
        idle_s = min((now_s - member.active_s for rank, member in self._members.items() if rank != CORE), default=0.0)
        nobody_computes = idle_s > self.limits.stuck_step_s
        if core.beat.step_s < (self.limits.stuck_step_s if nobody_computes else self.limits.endless_step_s):
            return None
        return f"a step of the engine has not ended for {core.beat.step_s:.0f} s: {self._doings()}"

    def _doings(self) -> str:
        """What ranks are at, those that do the same together, the fewest first: the odd one out is the suspect."""
        at: dict[str, list[Beat]] = {}
        for rank, member in sorted(self._members.items()):
            if rank != CORE:
                at.setdefault(member.beat.doing, []).append(member.beat)
        groups = sorted(at.items(), key=lambda each: (len(each[1]), each[1][0].rank))
        shown = [
            f"{beats[0].who if len(beats) == 1 else _ranks([beat.rank for beat in beats])} in {doing}"
            for doing, beats in groups[:4]
        ]
        return "; ".join(shown)

    @staticmethod
    def _first_cause(closed: list[Beat]) -> Beat:
        """Of processes that died together, a rank before the core, which ends because of it."""
        return next((beat for beat in closed if beat.rank != CORE), closed[0])


def _ranks(numbers: Sequence[int]) -> str:
    return f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {', '.join(map(str, numbers))}"


def _is_active(before: Beat, now: Beat) -> bool:
    return (
        now.cpu_s - before.cpu_s > ACTIVE_CPU_S
        or abs(now.memory_bytes - before.memory_bytes) > ACTIVE_MEMORY_BYTES
        or now.read_bytes - before.read_bytes > ACTIVE_READ_BYTES
    )
