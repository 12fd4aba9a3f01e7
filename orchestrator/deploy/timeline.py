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
        """A phase begins; whether that is news. Several ranks tell the same, and what is over does not begin again.

        Raises `ValueError` for a phase that is none.
        """
        order = PHASES.index(phase)
        if self.marks:
            last_s, current = self.marks[-1]
            back_to_warm_up = (current, phase) == ("KV cache", "warm-up")
            if order <= PHASES.index(current) and not back_to_warm_up:
                return False
            at_s = max(at_s, last_s)
        self.marks.append((at_s, phase))
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
