"""Where the time of a deployment went: marks say when a phase began, and a phase ends where the next begins. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

# In the order a deployment meets them first. Warm-up (profiling, compiling) surrounds the allocation of KV cache.
PHASES = ("cluster", "placement", "engine process", "weights", "warm-up", "KV cache", "first token")


@dataclass
class Timeline:
    """Marks (time in seconds, phase) of one deployment."""

    marks: list[tuple[float, str]] = field(default_factory=list)

    def mark(self, phase: str, at_s: float) -> bool:
        """A phase begins; whether that is news (several ranks tell the same). Time never runs backwards."""
        if phase not in PHASES:
            raise ValueError(f"no phase {phase!r}")
        if self.marks and self.marks[-1][1] == phase:
            return False
        if phase == "weights" and any(marked == "weights" for _, marked in self.marks):
            return False  # the first rank began; the others are under way in the same phase
        self.marks.append((max(at_s, self.marks[-1][0] if self.marks else at_s), phase))
        return True

    @property
    def current(self) -> str | None:
        return self.marks[-1][1] if self.marks else None

    def seconds(self, until_s: float) -> dict[str, float]:
        """Seconds by phase, in the order of first entry; they add up to `until_s` less the first mark."""
        ends = [at_s for at_s, _ in self.marks[1:]] + [max(until_s, self.marks[-1][0])] if self.marks else []
        spent: dict[str, float] = {}
        for (at_s, phase), end_s in zip(self.marks, ends, strict=True):
            spent[phase] = spent.get(phase, 0.0) + end_s - at_s
        return spent
