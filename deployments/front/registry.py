"""Which replicas serve which model, as they themselves announce it. Pure: time is handed in."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.front_link import Announcement

# A replica that has not announced itself for this long gets no new requests.
LEASE_S = 5.0


@dataclass
class Deployment:
    """A deployment the front has heard of. It outlives its replicas: a model that is away is not unknown."""

    name: str
    names: tuple[str, ...]
    auth: bool
    created: int
    max_model_len: int
    rehearsal: bool = False
    last_seen_s: dict[str, float] = field(default_factory=dict)
    replicas: dict[str, Announcement] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)

    @property
    def live(self) -> list[Announcement]:
        """Its replicas in a fixed order."""
        return [self.replicas[replica] for replica in sorted(self.replicas)]


class Registry:
    """Deployments by name, kept by leases."""

    def __init__(self) -> None:
        self.deployments: dict[str, Deployment] = {}

    def announce(self, said: Announcement, in_flight: int, now_s: float) -> bool:
        """Take a heartbeat; whether routes change by it."""
        known = self.deployments.get(said.deployment)
        if known is None:
            known = Deployment(said.deployment, said.names, said.auth, said.created, said.max_model_len)
            self.deployments[said.deployment] = known
        changed = known.replicas.get(said.replica) != said
        if changed:
            # The newest replica tells what the model is called and who may call it.
            known.names, known.auth, known.max_model_len = said.names, said.auth, said.max_model_len
            known.rehearsal = said.rehearsal
        known.replicas[said.replica] = said
        known.last_seen_s[said.replica] = now_s
        known.in_flight[said.replica] = in_flight
        return changed

    def withdraw(self, replica: str) -> bool:
        """A replica leaves; whether it was there."""
        return any(self._drop(known, replica) for known in self.deployments.values())

    def forget(self, deployment: str) -> bool:
        """A deployment is deleted for good; whether it was known."""
        return self.deployments.pop(deployment, None) is not None

    def expire(self, now_s: float) -> bool:
        """Drop replicas whose lease is over; whether any was."""
        late = [
            (known, replica)
            for known in self.deployments.values()
            for replica, seen_s in known.last_seen_s.items()
            if now_s - seen_s > LEASE_S
        ]
        for known, replica in late:
            self._drop(known, replica)
        return bool(late)

    def find(self, model: str) -> Deployment | None:
        """The deployment that answers to `model`, its name or an alias. Names win over others' aliases."""
        if model in self.deployments:
            return self.deployments[model]
        return next((known for known in self.deployments.values() if model in known.names), None)

    def routes(self) -> dict[str, str]:
        """Every name and alias with the deployment that answers to it."""
        aliases = {alias: known.name for known in reversed(self.deployments.values()) for alias in known.names}
        return {**aliases, **{name: name for name in self.deployments}}

    @staticmethod
    def _drop(known: Deployment, replica: str) -> bool:
        known.last_seen_s.pop(replica, None)
        known.in_flight.pop(replica, None)
        return known.replicas.pop(replica, None) is not None
