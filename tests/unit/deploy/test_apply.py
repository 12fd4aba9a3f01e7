"""Deploying against a cluster of dictionaries: what is put, what is watched, and what is put back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from orchestrator.deploy.apply import Deployer, Outcome
from orchestrator.deploy.clock import Clock
from orchestrator.deploy.front import FrontControl
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.ray_api import RayApi, RayNode
from orchestrator.deploy.timeline import Timeline
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.units import GIB
from tests.unit.deploy.test_render import rendered

APP = rendered()
OTHER = {"name": "other", "import_path": "theirs:app"}


@dataclass
class World:
    """Ray Serve, the front and the clock in one: each look at it lets half a second pass.

    `script` holds what happens at which second: a function of this world.
    """

    script: dict[float, Callable[[World], None]] = field(default_factory=dict)
    apps: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)
    puts: list[list[str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    free_cpus: float = 2.0
    time_s: float = 1000.0

    # The clock

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        for at_s in sorted(self.script):
            if at_s <= self.time_s - 1000:
                self.script.pop(at_s)(self)

    # Ray

    def serve_details(self) -> dict[str, Any]:
        return {"applications": dict(self.apps), "proxy_location": "Disabled"}

    def put_applications(self, config: dict[str, Any]) -> None:
        names = [app["name"] for app in config["applications"]]
        self.puts.append(names)
        for app in config["applications"]:
            if self.apps.get(app["name"], {}).get("deployed_app_config") != app:
                self.apps[app["name"]] = running(app, "DEPLOYING", self.time_s)
        for name in set(self.apps) - set(names):
            self.apps[name] = {**self.apps[name], "status": "DELETING"}
            self.script[self.time_s - 1000 + 2] = removes(name)

    def remove(self, name: str) -> None:
        self.apps = {key: app for key, app in self.apps.items() if key != name}

    def nodes(self) -> list[RayNode]:
        return [RayNode("n", "127.0.0.1", {"CPU": 2.0}, 16 * GIB, 8 * GIB)]

    def free_resources(self) -> dict[str, float]:
        return {"CPU": self.free_cpus}

    # The front

    def events(self, deployment: str, after: int, wait_s: float = 0.0) -> dict[str, Any]:
        self.sleep(wait_s)
        news = [event for event in self.told if event["sequence"] > after]
        return {"now_s": self.time_s, "last_sequence": len(self.told), "events": news}

    def deployments(self) -> list[dict[str, Any]]:
        return [{"name": name, "replicas": {str(n): {} for n in range(count)}} for name, count in self.live.items()]

    def forget(self, name: str) -> None:
        self.forgotten.append(name)

    # The public path

    def first_token(self, model: str, deadline_s: float, waiting: Callable[[], None]) -> None:
        waiting()

    # The view

    def phase(self, name: str) -> None:
        self.said.append(name)

    def say(self, line: str) -> None:
        self.said.append(line)

    def clock(self) -> Clock:
        return Clock(lambda: self.time_s, lambda: self.time_s, self.sleep)

    def deployer(self) -> Deployer:
        return Deployer(
            cast(RayApi, self), cast(FrontControl, self), cast(PublicApi, self), self, Timeline(), clock=self.clock()
        )

    def deploy(self, app: dict[str, Any] = APP, timeout_s: float = 60, wait: bool = True) -> Outcome:
        return self.deployer().deploy(app, GIB, timeout_s, wait)


def running(config: dict[str, Any] | None, status: str = "RUNNING", since_s: float = 1000.0) -> dict[str, Any]:
    replica = {"start_time_s": since_s + 1}
    return {
        "status": status, "deployed_app_config": config, "last_deployed_time_s": since_s, "message": "",
        "deployments": {"engine": {"replicas": [replica]}},
    }  # fmt: skip


def tells(kind: str, replica: str = "r1", **detail: Any) -> Callable[[World], None]:
    """An engine tells of itself."""

    def tell(world: World) -> None:
        event = {"sequence": len(world.told) + 1, "at_s": world.time_s, "replica": replica, "kind": kind}
        world.told.append({**event, "detail": detail})

    return tell


def removes(name: str) -> Callable[[World], None]:
    """The last process of an application ends."""
    return lambda world: world.remove(name)


def serves(world: World) -> None:
    world.apps["m"] = {**world.apps["m"], "status": "RUNNING"}
    world.live["m"] = 1


def interrupts(_world: World) -> None:
    raise KeyboardInterrupt


def comes_up() -> dict[float, Callable[[World], None]]:
    return {2: tells("weights"), 4: tells("warm-up"), 6: tells("KV cache"),
            8: tells("ready", kv_cache_tokens=4096), 10: serves}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path_factory.mktemp("home")))


def test_a_deployment_tells_its_phases_and_the_engines_facts() -> None:
    world = World(comes_up(), apps={"other": running(OTHER)})
    started_s = world.time_s
    outcome = world.deploy()
    assert (outcome.action, outcome.facts) == ("deployed", {"kv_cache_tokens": 4096})
    assert world.puts == [["m", "other"]]
    assert sum(outcome.seconds.values()) == pytest.approx(world.time_s - started_s)
    assert list(outcome.seconds) == ["placement", "engine process", "weights", "warm-up", "KV cache", "first token"]
    assert world.said == list(outcome.seconds)


def test_the_same_again_is_unchanged_and_nothing_is_put() -> None:
    world = World(apps={"m": running(APP)}, live={"m": 1})
    assert world.deploy().action == "unchanged"
    assert world.puts == []


@pytest.mark.parametrize(("status", "live"), [("RUNNING", 0), ("UNHEALTHY", 1), ("DEPLOYING", 1)])
def test_the_same_again_is_put_when_it_does_not_serve(status: str, live: int) -> None:
    world = World({3: serves}, apps={"m": running(APP, status)}, live={"m": live})
    if status == "UNHEALTHY":
        world.apps["m"]["last_deployed_time_s"] = 0
        world.script = {1: serves}
    assert world.deploy(wait=False).action == "updated"
    assert world.puts == [["m"]]


def test_a_change_is_told_and_rolled_out() -> None:
    world = World(comes_up(), apps={"m": running(APP)}, live={"m": 1}, free_cpus=1)
    outcome = world.deploy(rendered(engine={"seed": 7}))
    assert outcome.action == "updated"
    assert [str(change) for change in outcome.changes] == ["engine.seed: (unset) → 7"]
    assert "changes engine.seed: (unset) → 7" in world.said


def test_without_waiting_it_returns_once_it_is_put() -> None:
    world = World()
    assert world.deploy(wait=False).action == "deployed"
    assert list(world.apps) == ["m"]


def test_a_new_service_that_fails_is_removed_with_the_engines_own_cause() -> None:
    world = World({3: tells("failed", cause="No available memory")}, apps={"other": running(OTHER)})
    with pytest.raises(ApplyFailed, match="m did not start: No available memory"):
        world.deploy()
    assert world.puts == [["m", "other"], ["other"]]
    assert list(world.apps) == ["other"]
    assert world.forgotten == ["m"]
    assert "failed; removing m" in world.said


def test_an_update_that_fails_is_put_back() -> None:
    world = World({3: tells("failed", cause="bad")}, apps={"m": running(APP), "other": running(OTHER)})
    with pytest.raises(ApplyFailed, match="bad"):
        world.deploy(rendered(engine={"seed": 7}))
    assert world.apps["m"]["deployed_app_config"] == APP
    assert world.apps["other"] == running(OTHER)
    assert world.forgotten == []
    assert "failed; putting back m" in world.said


def test_serves_own_failure_is_told_where_the_engine_told_none() -> None:
    def fails(world: World) -> None:
        world.apps["m"] |= {"status": "DEPLOY_FAILED", "message": "Traceback\n  File x\nRuntimeError: no such module"}

    with pytest.raises(ApplyFailed, match="m did not start: RuntimeError: no such module"):
        World({3: fails}).deploy()


def test_a_cause_that_comes_while_serve_is_asked_is_told_all_the_same() -> None:
    class Racing(World):
        def serve_details(self) -> dict[str, Any]:
            if self.time_s >= 1003 and "m" in self.apps and not self.told:
                tells("failed", cause="the engine's own")(self)
                self.apps["m"] |= {"status": "DEPLOY_FAILED", "message": "Failed to update the deployments ['engine']."}
            return super().serve_details()

    with pytest.raises(ApplyFailed, match="m did not start: the engine's own"):
        Racing().deploy()


def test_a_killed_engine_is_explained() -> None:
    with pytest.raises(ApplyFailed, match=r"killed \(signal 9\), usually by the kernel for lack of memory"):
        World({3: tells("failed", cause="Engine core proc died with exit code -9")}).deploy()


def test_a_timeout_removes_it_and_tells_the_phase() -> None:
    world = World({2: tells("weights")})
    with pytest.raises(ApplyFailed, match=r"still at 'weights' \(placement .*weights .*--timeout.*logs m") as failure:
        world.deploy(timeout_s=20)
    assert "\n" not in str(failure.value)
    assert world.apps == {}
    assert world.time_s < 1000 + 20 + 5


def test_ctrl_c_removes_it() -> None:
    world = World({3: interrupts})
    with pytest.raises(KeyboardInterrupt):
        world.deploy()
    assert world.apps == {}
    assert "interrupted; removing m" in world.said


@pytest.mark.parametrize("error", [KeyboardInterrupt, ClusterUnavailable("no answer in time")])
def test_a_put_whose_answer_never_came_is_undone(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve may have taken it, and would start what nobody waits for."""
    world = World()
    put = world.put_applications

    def break_off(config: dict[str, Any]) -> None:
        put(config)
        monkeypatch.setattr(world, "put_applications", put)
        raise error

    monkeypatch.setattr(world, "put_applications", break_off)
    with pytest.raises((KeyboardInterrupt, ClusterUnavailable)):
        world.deploy()
    assert world.apps == {}


def test_an_application_of_somebody_elses_is_not_replaced() -> None:
    for theirs in ({**OTHER, "name": "m"}, None):
        world = World(apps={"m": running(theirs)})
        with pytest.raises(ApplyFailed, match=r"an application 'm' that is not ours.*--name"):
            world.deploy()
        assert world.puts == []


def test_what_is_on_its_way_out_is_deployed_anew() -> None:
    world = World(comes_up(), apps={"m": running(APP, "DELETING")})
    world.apps["m"]["deployed_app_config"] = {**APP, "args": "old"}
    assert world.deploy().action == "deployed"


def test_without_a_place_nothing_is_put() -> None:
    world = World(free_cpus=0)
    with pytest.raises(ApplyFailed, match="no place for it: needs 1 CPU, and 0 are free"):
        world.deploy()
    assert world.puts == []


def test_what_was_just_given_up_may_still_count_as_used_for_a_while() -> None:
    def freed(world: World) -> None:
        world.free_cpus = 2

    world = World({4: freed}, free_cpus=0)
    assert world.deploy(wait=False).action == "deployed"
    assert 1004 <= world.time_s < 1008


def test_more_replicas_need_more_places() -> None:
    """What the service holds already is free for it; the rest must be."""
    world = World(apps={"m": running(APP)}, live={"m": 1}, free_cpus=1)
    with pytest.raises(ApplyFailed, match="needs 3 CPU, and 2 are free"):
        world.deploy(rendered(replicas=3))
    assert world.deploy(rendered(replicas=2), wait=False).action == "updated"


def test_every_replica_must_serve() -> None:
    world = World(comes_up() | {20: lambda world: world.live.update(m=2)})
    assert world.deploy(rendered(replicas=2)).action == "deployed"
    assert world.time_s >= 1020


def test_a_failure_that_cannot_be_undone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({3: tells("failed", cause="bad")})

    def gone() -> dict[str, Any]:
        if world.time_s > 1002:
            raise ClusterUnavailable("Ray is away")
        return {"applications": dict(world.apps)}

    monkeypatch.setattr(world, "serve_details", gone)
    with pytest.raises((ApplyFailed, ClusterUnavailable)):
        world.deploy()
    assert any("could not put m back: Ray is away" in line for line in world.said)
