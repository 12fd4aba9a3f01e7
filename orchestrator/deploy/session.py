"""One deployment from a name to a first token: cluster, front, application. What the `deploy` command calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.catalog.registry import Catalog
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import front as fronts
from orchestrator.deploy import models
from orchestrator.deploy.apply import Deployer, Outcome, View
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.ray_api import RayApi
from orchestrator.deploy.remove import remove
from orchestrator.deploy.render import Rendering, render_application, render_ingress
from orchestrator.deploy.serve_config import ServeProxy
from orchestrator.deploy.service import Service
from orchestrator.deploy.timeline import Timeline
from orchestrator.errors import ClusterUnavailable
from orchestrator.store.secrets import ensure_api_key, read_api_key

DEFAULT_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Target:
    """Where to deploy: a dashboard address (None: the one that runs here) and the front's public address."""

    address: str | None = None
    host: str = fronts.DEFAULT_HOST
    port: int = fronts.DEFAULT_PORT
    front: str = "haproxy"


def application_of(
    service: Service, control_url: str, on_gpus: bool, say: Callable[[str], None], catalog: Catalog | None = None
) -> tuple[Any, Any]:
    """The Serve application of a service, with what its model's name stands for."""
    model = models.resolve(service.model, say, catalog)
    rendering = Rendering(model.source, model.aliases, on_gpus, control_url, model.engine, model.env)
    return render_application(service, rendering), model


def deploy(
    service: Service, target: Target, view: View, timeout_s: float, wait: bool, catalog: Catalog | None = None
) -> tuple[Outcome, str]:
    """Bring a service up; what came of it and its `base_url`."""
    timeline = Timeline()
    # The model first: a name nobody knows must not start a cluster.
    models.resolve(service.model, view.say, catalog)
    timeline.mark("cluster", time.time())
    view.phase("cluster")
    cluster = clusters.find_cluster(target.address) or clusters.start_local(view.say)
    api = clusters.check_usable(cluster)
    front = fronts.ensure_front(target.host, target.port, target.front)
    on_gpus = any(node.num_gpus for node in api.nodes())
    app, model = application_of(service, front.control_url, on_gpus, view.say, catalog)
    key = read_api_key(ensure_api_key()) if service.access.auth else None
    control, public = fronts.FrontControl(front.control_url), PublicApi(front.base_url, key)
    deployer = Deployer(api, control, public, view, timeline, _proxy(front))
    return deployer.deploy(app, model.weights_bytes, timeout_s, wait), front.base_url


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
