"""One deployment from a name to a first token: cluster, front, application. What the `deploy` command calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import front as fronts
from orchestrator.deploy import local_ray, models
from orchestrator.deploy.apply import Deployer, Outcome, View
from orchestrator.deploy.placing import Planned, gpus_held, selectors
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.ray_api import RayApi, RayNode, nodes_of
from orchestrator.deploy.remove import remove
from orchestrator.deploy.render import Placement, Rendering, render_application, render_ingress
from orchestrator.deploy.serve_config import ServeProxy
from orchestrator.deploy.service import Service
from orchestrator.deploy.timeline import Timeline
from orchestrator.errors import ClusterUnavailable, SeatTaken
from orchestrator.store.secrets import ensure_api_key, read_api_key

DEFAULT_TIMEOUT_S = 1800.0
# How often to plan anew when others take planned GPUs first.
MOST_PLANS = 3


@dataclass(frozen=True)
class Target:
    """Where to deploy: a dashboard address (None: the one that runs here) and the front's public address."""

    address: str | None = None
    host: str = fronts.DEFAULT_HOST
    port: int = fronts.DEFAULT_PORT
    front: str = "haproxy"


@dataclass(frozen=True)
class Live:
    """A cluster as it is now, for planning: its nodes, also as the dashboard's rows, and GPUs that plans hold."""

    url: str
    nodes: list[RayNode]
    agents: list[dict[str, Any]]
    states: list[dict[str, Any]]
    held_by_others: dict[str, set[int]]
    held_by_itself: dict[str, set[int]]

    @property
    def has_gpus(self) -> bool:
        return any(node.num_gpus for node in self.nodes)

    @property
    def is_emulated(self) -> bool:
        """Whether its GPUs are CPUs."""
        return self.has_gpus and all(node.is_emulated for node in self.nodes if node.num_gpus)


class Course(Protocol):
    """How a deployment is gone about: for real, or as a rehearsal."""

    def resolve(self, model: str, say: Callable[[str], None], from_cache: bool = True) -> models.Deployable:
        """What the engine is to load for a model's name; `from_cache`: this machine's cache is the engine's.

        Raises `UnknownModel`.
        """

    def start_cluster(self, say: Callable[[str], None]) -> clusters.Cluster:
        """A cluster where none is addressed and none runs."""

    def fetch(self, service: Service, model: models.Deployable, api: RayApi, view: View) -> None:
        """See to it that every node has the weights. Raises `CheckpointUnavailable` naming the node that has not."""

    def plan(self, service: Service, live: Live) -> Planned | None:
        """Where ranks go; None for a cluster without GPUs. Raises `NoFeasiblePlan`, `StalePlan` or `ApplyFailed`."""


def application_of(
    service: Service, model: models.Deployable, control_url: str, on_gpus: bool, placement: Placement | None = None
) -> dict[str, Any]:
    """The Serve application of a service whose model has been resolved."""
    rendering = Rendering(model.source, model.aliases, on_gpus, control_url, model.engine, model.env, placement)
    return render_application(service, rendering)


@dataclass(frozen=True)
class _Ground:
    """Where a deployment takes place: a cluster with its nodes, and the front before it."""

    api: RayApi
    nodes: Sequence[RayNode]
    front: fronts.FrontRecord

    @property
    def has_our_cache(self) -> bool:
        """Whether every engine sees this machine's cache: not where there are other machines."""
        return len({node.address for node in self.nodes}) <= 1


def deploy(
    service: Service, target: Target, course: Course, view: View, timeout_s: float, wait: bool
) -> tuple[Outcome, str]:
    """Bring a service up; what came of it and its `base_url`."""
    timeline = Timeline()
    # The model first: a name nobody knows must not start a cluster.
    course.resolve(service.model, view.say)
    timeline.mark("cluster", time.time())
    view.phase("cluster")
    ground, planned = _prepare(service, target, course, view)
    key = read_api_key(ensure_api_key()) if service.access.auth else None
    control, public = fronts.FrontControl(ground.front.control_url), PublicApi(ground.front.base_url, key)
    deployer = Deployer(ground.api, control, public, view, timeline, _proxy(ground.front))
    for plans_left in reversed(range(MOST_PLANS)):
        try:
            outcome = _apply(service, ground, planned, course, deployer, timeout_s, wait)
        except SeatTaken as error:  # two deployments planned at once, and the other was first
            if not plans_left:
                raise
            view.say(f"{error}: planning again")
            planned = course.plan(service, look(ground.api, service.name))
        else:
            break
    outcome.plan = planned.plan if planned else None
    return outcome, ground.front.base_url


def preview(service: Service, address: str | None, course: Course, say: Callable[[str], None]) -> dict[str, Any]:
    """The application that `deploy` would hand to the cluster there is, planned onto its GPUs; nothing is changed.

    Where no Ray runs, the one for a Ray of CPUs. Raises what planning raises.
    """
    front = fronts.running_front()
    control_url = front.control_url if front else f"http://{fronts.CONTROL_HOST}:{fronts.CONTROL_PORT}"
    cluster = clusters.find_cluster(address)
    if cluster is None:
        return application_of(service, course.resolve(service.model, say), control_url, on_gpus=False)
    api = clusters.check_usable(cluster)
    nodes = api.nodes()
    planned = course.plan(service, look(api, service.name))
    placement = Placement(planned, selectors(planned.plan, nodes)) if planned else None
    model = course.resolve(service.model, say, len({node.address for node in nodes}) <= 1)
    return application_of(service, model, control_url, any(node.num_gpus for node in nodes), placement)


def _prepare(service: Service, target: Target, course: Course, view: View) -> tuple[_Ground, Planned | None]:
    """Cluster, plan and front. A Ray that was started for a model that it cannot serve does not stay."""
    with ExitStack() as undo:
        cluster = clusters.find_cluster(target.address)
        if cluster is None:
            cluster = course.start_cluster(view.say)
        if cluster.is_new:
            undo.callback(local_ray.stop)
        api = clusters.check_usable(cluster)
        nodes = api.nodes()
        planned = course.plan(service, look(api, service.name))
        front = fronts.ensure_front(target.host, target.port, target.front, clusters.address_for_replicas(nodes))
        undo.pop_all()
    return _Ground(api, nodes, front), planned


def _apply(
    service: Service, ground: _Ground, planned: Planned | None, course: Course, deployer: Deployer,
    timeout_s: float, wait: bool,
) -> Outcome:  # fmt: skip
    """Weights to the nodes, if anything is to change, then the application to Serve."""
    placement = Placement(planned, selectors(planned.plan, ground.nodes)) if planned else None
    on_gpus = any(node.num_gpus for node in ground.nodes)

    def application() -> tuple[models.Deployable, dict[str, Any]]:
        model = course.resolve(service.model, deployer.view.say, ground.has_our_cache)
        return model, application_of(service, model, ground.front.control_url, on_gpus, placement)

    model, app = application()
    if not deployer.is_unchanged(app):
        course.fetch(service, model, ground.api, deployer.view)
        model, app = application()  # what has been fetched has an exact revision by now
    return deployer.deploy(app, model.weights_bytes, timeout_s, wait)


def look(api: RayApi, name: str = "") -> Live:
    """The cluster as it is now; what the deployment `name` holds counts as its own."""
    others, own = gpus_held(api.serve_details(), name)
    agents, states = api.node_rows()
    return Live(api.url, nodes_of(agents, states), agents, states, others, own)


def _proxy(front: fronts.FrontRecord) -> ServeProxy | None:
    return ServeProxy(front.host, front.port, render_ingress(front.control_url)) if front.kind == "serve" else None


def connected(address: str | None) -> RayApi:
    """An API to the cluster a command means; raises `ClusterUnavailable` when none runs."""
    cluster = clusters.find_cluster(address)
    if cluster is None:
        raise ClusterUnavailable(
            "no Ray runs here; start one with `orchestrator deploy MODEL`, or name one with --address"
        )
    return cluster.api()


def the_front() -> fronts.FrontRecord:
    """The front that runs here; raises `ClusterUnavailable` when none does."""
    front = fronts.running_front()
    if front is None:
        raise ClusterUnavailable("no front runs here, so nothing is served; start with: orchestrator deploy MODEL")
    return front


def delete(api: RayApi, front: fronts.FrontRecord | None, name: str) -> bool:
    """Take an application away; whether it was there. Where no front runs, there is none that must forget it."""
    forget = fronts.FrontControl(front.control_url).forget if front else lambda _name: None
    return remove(api, name, forget)
