"""Bringing a service to the state that was asked for: compare, put, watch, or put things back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from orchestrator.deploy import preflight
from orchestrator.deploy.clock import Clock
from orchestrator.deploy.diff import Change, differences
from orchestrator.deploy.front import FrontControl
from orchestrator.deploy.placing import check_seats, waits_for
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.ray_api import RayApi, RayNode
from orchestrator.deploy.remove import wait_until_gone
from orchestrator.deploy.render import IMPORT_PATH
from orchestrator.deploy.serve_config import (
    ServeProxy,
    comparable,
    current_applications,
    failure,
    with_application,
    without_application,
)
from orchestrator.deploy.timeline import Timeline
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.plan import Plan
from orchestrator.store.home import locked
from orchestrator.units import format_seconds

POLL_S = 0.5
# How long Ray Serve may take to notice what the engine has already told.
SETTLE_S = 30.0
# How old Ray's account of used resources may be.
ACCOUNT_AGE_S = 8.0
# A placement that takes longer than this is explained.
WAITING_S = 10.0


class View(Protocol):
    """Where progress is shown."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def say(self, line: str) -> None:
        """Something worth a line."""


@dataclass
class Outcome:
    """What a deployment came to. `seconds` by phase add up to the wall time; `facts` are the engine's own."""

    name: str
    action: str
    changes: list[Change] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None


@dataclass
class Deployer:
    """Deploys applications to one cluster, behind one front."""

    api: RayApi
    control: FrontControl
    public: PublicApi
    view: View
    timeline: Timeline
    proxy: ServeProxy | None = None
    poll_s: float = POLL_S
    clock: Clock = field(default_factory=Clock)

    def deploy(self, app: Mapping[str, Any], weights_bytes: int | None, timeout_s: float, wait: bool) -> Outcome:
        """Bring `app` (one entry of a Serve configuration) up and return once a token has come back.

        A failure, a timeout and Ctrl-C put things back as they were. Raises `ApplyFailed` with the engine's own cause.
        """
        name = str(app["name"])
        deadline_s = self.clock.monotonic_s() + timeout_s
        with ExitStack() as undo:
            with locked("serve"):
                details = self.api.serve_details()
                _check_ours(name, details)
                before = current_applications(details).get(name)
                changes = list(differences(comparable(before), comparable(app))) if before else []
                if self._serves_already(app, details):
                    return Outcome(name, "unchanged")
                check_seats(app, details)
                self._preflight(app, before, weights_bytes)
                told = self.control.events(name, after=0)
                # From here on: Serve may take a configuration whose answer never reaches us.
                undo.push(partial(self._put_back, name, before))
                self.api.put_applications(with_application(details, app, self.proxy))
            self._phase("placement")
            for change in changes:
                self.view.say(f"changes {change}")
            outcome = Outcome(name, "updated" if before else "deployed", changes)
            if wait:
                outcome.facts = self._watch(app, int(told["last_sequence"]), float(told["now_s"]), deadline_s)
                self.public.first_token(name, deadline_s, waiting=lambda: self._check_failed(name))
                outcome.seconds = self.timeline.seconds(self.clock.now_s())
            return outcome

    def is_unchanged(self, app: Mapping[str, Any]) -> bool:
        """Whether `app` is what is deployed, and serves."""
        return self._serves_already(app, self.api.serve_details())

    def _serves_already(self, app: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
        before = current_applications(details).get(str(app["name"]))
        if before is None or not _is_ours(details["applications"][app["name"]]):
            return False
        changed = any(differences(comparable(before), comparable(app)))
        return not changed and self._is_serving(details, str(app["name"]))

    def _preflight(self, app: Mapping[str, Any], before: Mapping[str, Any] | None, weights_bytes: int | None) -> None:
        config = app["args"]["llm_config"]
        nodes = self._with_a_place(config, before)
        on_gpus = any("GPU" in bundle for bundle in config["placement_group_config"]["bundles"])
        if weights_bytes is not None and not on_gpus and before is None:
            preflight.check_memory(nodes, weights_bytes, config)

    def _with_a_place(self, config: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[RayNode]:
        """The nodes, once there is room. Ray's account of what is used is seconds old: what was just given up may
        still count, so a lack has to last. Raises `ApplyFailed` for one that does."""
        deadline_s = self.clock.monotonic_s() + ACCOUNT_AGE_S
        while True:
            nodes, free = self.api.nodes(), self.api.free_resources()
            if before is not None:  # it takes the place of what it replaces
                for resource, held in preflight.resources(before["args"]["llm_config"]).items():
                    free[resource] = free.get(resource, 0) + held
            try:
                preflight.check_place(nodes, config, free)
            except ApplyFailed:
                if self.clock.monotonic_s() > deadline_s:
                    raise
                self.clock.sleep(POLL_S)
            else:
                return nodes

    def _is_serving(self, details: Mapping[str, Any], name: str) -> bool:
        """Whether an application runs and the front has a replica of it."""
        running = details["applications"].get(name, {}).get("status") == "RUNNING"
        return running and any(known["name"] == name and known["replicas"] for known in self.control.deployments())

    def _phase(self, name: str, at_s: float | None = None) -> None:
        if self.timeline.mark(name, self.clock.now_s() if at_s is None else at_s):
            self.view.phase(name)

    def _watch(self, app: Mapping[str, Any], sequence: int, started_s: float, deadline_s: float) -> dict[str, Any]:
        """Follow the engine's own events until every replica serves; the facts it told."""
        name = str(app["name"])
        replicas = int(app["args"]["llm_config"]["deployment_config"]["num_replicas"])
        facts: dict[str, Any] = {}
        followed: str | None = None
        skew_s = self.clock.now_s() - started_s
        while True:
            told = self.control.events(name, sequence, wait_s=self.poll_s)
            for event in told["events"]:
                sequence = event["sequence"]
                if event["kind"] == "failed":
                    raise ApplyFailed(f"{name} did not start: {_explain(event['detail'].get('cause', ''))}")
                followed = followed or event["replica"]
                if event["replica"] == followed:
                    self._take(event, skew_s, facts)
            self._explain_waiting(app, started_s + skew_s)
            if self._settled(name, replicas, started_s + skew_s, sequence):
                self._phase("first token")
                return facts
            if self.clock.monotonic_s() > deadline_s:
                raise ApplyFailed(self._late(name))

    def _take(self, event: Mapping[str, Any], skew_s: float, facts: dict[str, Any]) -> None:
        """One event of the replica whose start is shown."""
        if event["kind"] == "ranks":
            facts["rank_warnings"] = list(event["detail"]["odd"])
            return
        phases = {"ready": "first token", "serving": "first token"}
        phase = phases.get(event["kind"], event["kind"])
        self._phase(phase, float(event["at_s"]) + skew_s)
        if event["kind"] == "ready":
            facts.update(event["detail"])

    def _explain_waiting(self, app: Mapping[str, Any], started_s: float) -> None:
        """Say what a placement that takes long waits for."""
        waited_s = self.clock.now_s() - started_s
        if self.timeline.current != "placement" or waited_s < WAITING_S:
            return
        bundles = app["args"]["llm_config"]["placement_group_config"]["bundles"]
        each = " and ".join(f"{amount:g} {resource}" for resource, amount in bundles[0].items())
        why = waits_for(app["args"], self.api.nodes()) or f"Ray looks for {len(bundles)} places of {each} each"
        self.view.say(f"{why} ({waited_s:.0f} s)")

    def _settled(self, name: str, replicas: int, started_s: float, sequence: int) -> bool:
        """Whether Serve runs what was put, and as many replicas announce themselves; events up to `sequence` are known.

        What Serve says of a failure is that there was one. The engine's own cause was told before, but may have come
        since we last listened.
        """
        app = self.api.serve_details()["applications"].get(name)
        if app is not None and (began_s := _newest_start(app)) > started_s:
            self._phase("engine process", began_s)
        if app is None or float(app.get("last_deployed_time_s") or 0) < started_s - SETTLE_S:
            return False
        if app["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            events = self.control.events(name, sequence, wait_s=0)["events"]
            told = next((event["detail"].get("cause") for event in events if event["kind"] == "failed"), None)
            raise ApplyFailed(f"{name} did not start: {_explain(told or failure(app.get('message', '')))}")
        live: Mapping[str, Any] = next(
            (known["replicas"] for known in self.control.deployments() if known["name"] == name), {}
        )
        return app["status"] == "RUNNING" and len(live) >= replicas

    def _check_failed(self, name: str) -> None:
        app = self.api.serve_details()["applications"].get(name, {})
        if app.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ApplyFailed(f"{name} failed after it had started: {failure(app.get('message', ''))}")

    def _late(self, name: str) -> str:
        spent = self.timeline.seconds(self.clock.now_s())
        shown = ", ".join(f"{phase} {format_seconds(seconds)}" for phase, seconds in spent.items())
        where = self.timeline.current
        message = f"{name} is not ready in time: it is still at {where!r} ({shown})"
        return f"{message}; give it longer with --timeout, or see: orchestrator logs {name}"

    def _put_back(self, name: str, before: Mapping[str, Any] | None, why: type[BaseException] | None, *_: Any) -> None:
        """Undo what failed: the application is as it was before, or gone. As `ExitStack.push` calls it."""
        if why is None:
            return
        event = "failed" if issubclass(why, Exception) else "interrupted"
        self.view.say(f"{event}; {'putting back' if before else 'removing'} {name}")
        try:
            with locked("serve"):
                details = self.api.serve_details()
                config = with_application(details, before) if before else without_application(details, name)
                self.api.put_applications(config)
            if before is None:
                wait_until_gone(self.api, name, self.clock)
                self.control.forget(name)
        except (ApplyFailed, ClusterUnavailable) as error:
            self.view.say(f"could not put {name} back: {error}")


def _check_ours(name: str, details: Mapping[str, Any]) -> None:
    """Refuse to replace an application of the same name that somebody else put there."""
    there = details["applications"].get(name)
    if there is None or there.get("status") == "DELETING":
        return
    if not _is_ours(there):
        raise ApplyFailed(f"Serve already runs an application {name!r} that is not ours; deploy under another --name")


def _is_ours(app: Mapping[str, Any]) -> bool:
    return bool((app.get("deployed_app_config") or {}).get("import_path") == IMPORT_PATH)


def _newest_start(app: Mapping[str, Any]) -> float:
    """When Serve began the youngest replica of an application; 0 without any."""
    deployments = app.get("deployments", {}).values()
    starts = [replica.get("start_time_s") or 0 for each in deployments for replica in each["replicas"]]
    return max(starts, default=0)


def _explain(cause: str) -> str:
    """The engine's own cause, and for a killed process what usually kills it."""
    if "-9" in cause and "core proc" in cause:
        return f"its engine process was killed (signal 9), usually by the kernel for lack of memory [{cause}]"
    return cause or "the engine gave no reason; see its log"
