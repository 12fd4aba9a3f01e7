"""How `deploy` goes about it: for real, or as a rehearsal on GPUs that CPUs stand in for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.catalog.registry import Catalog
from orchestrator.cli.planning import Asked, entry_of, plan_of, snapshot_of
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.cluster.spec import parse_gpus
from orchestrator.demo import stand_in_for
from orchestrator.deploy import local_ray, models, pull_nodes
from orchestrator.deploy.apply import View
from orchestrator.deploy.cluster import Cluster, start_local
from orchestrator.deploy.local_ray import EmulatedNode
from orchestrator.deploy.placing import Planned
from orchestrator.deploy.ray_api import RayApi
from orchestrator.deploy.render import ON_CPU
from orchestrator.deploy.service import Service
from orchestrator.deploy.session import Live
from orchestrator.errors import ApplyFailed, CheckpointUnavailable, ClusterUnavailable, ConfigError
from orchestrator.plan import Plan, PlannedCluster, load_plan
from orchestrator.probes.hugging_face import find_model
from orchestrator.units import GIB, MIB, format_bytes
from orchestrator.weights import pins
from orchestrator.weights.wanted import want


@dataclass(frozen=True)
class Serving:
    """The model itself on the cluster that there is: planned where it has GPUs, else as the engine's CPU build runs."""

    known: Catalog
    plan_file: Path | None = None

    def resolve(self, model: str, say: Callable[[str], None], from_cache: bool = True) -> models.Deployable:
        return models.resolve(model, say, self.known, from_cache=from_cache)

    def start_cluster(self, say: Callable[[str], None]) -> Cluster:
        return start_local(say)

    def plan(self, service: Service, live: Live) -> Planned | None:
        if not live.has_gpus:
            self._check_cpus_will_do(service, live)
            return None
        if live.is_emulated:
            raise ApplyFailed(
                f"the GPUs of {live.url} are emulated, and no engine serves {service.model} on them; rehearse with "
                "--emulate, or name another cluster"
            )
        plan = self._plan(service, snapshot_of(live, self.known.gpus))
        arguments = {name: value for name, value in plan.engine.args.items() if name != "model"}
        return Planned(plan, plan, {**service.engine, **arguments}, plan.engine.env)

    def fetch(self, service: Service, model: models.Deployable, api: RayApi, view: View) -> None:
        """Weights of the hub come to every node ahead of its ranks, once, with progress; what is there stays."""
        if Path(model.source).is_dir():
            return
        view.say(f"weights of {service.model} on every node")
        wanted = want(service.model, str(model.engine.get("revision") or "") or None, None, self.known)
        states = pull_nodes.run(api, wanted, False, lambda state: view.say(f"{state.node}: {state.line()}"))
        failed = [state for state in states if state.error]
        if failed:
            raise CheckpointUnavailable(f"{failed[0].node} has no weights of {service.model}: {failed[0].error}")
        revisions = {state.outcome["revision"] for state in states if state.outcome}
        if len(revisions) == 1:
            pins.remember(wanted.model, revisions.pop())

    def _plan(self, service: Service, cluster: ClusterSnapshot) -> Plan:
        if self.plan_file is None:
            return plan_of(_asked(service), cluster, self.known)
        plan = load_plan(self.plan_file)
        plan.require_cluster(PlannedCluster.of(cluster))
        _check_same(service, plan, self.known)
        return plan

    def _check_cpus_will_do(self, service: Service, live: Live) -> None:
        if self.plan_file is not None:
            raise ApplyFailed(f"{self.plan_file} is a plan for GPUs, and {live.url} has none; rehearse with --emulate")
        if (entry := entry_of(service.model, self.known)) is None:
            return
        needed = models.weights_bytes(self.known, entry)
        raise ApplyFailed(
            f"{service.model} needs GPUs, and {live.url} has none: its weights alone take {format_bytes(needed)} "
            f"(orchestrator plan {service.model} --what-if shows which GPUs would do); "
            f"to rehearse on this computer: orchestrator deploy {service.model} --emulate"
        )


def _asked(service: Service) -> Asked:
    defaults = models.DEMOS[service.model].engine if service.model in models.DEMOS else {}
    return Asked(_plannable(service.model), {**defaults, **service.engine}, service.replicas, service.env)


def _plannable(model: str) -> str:
    """A model's name as the planner takes it: that of a demo is its folder."""
    return models.resolve(model, lambda _line: None).source if model in models.DEMOS else model


def _check_same(service: Service, plan: Plan, known: Catalog) -> None:
    """A plan from a file is applied as it is: raise `ConfigError` for what is asked beside it and differs."""
    if find_model(service.model, known).name != plan.model.name:
        raise ConfigError(f"the plan is for {plan.model.name}, not for {service.model}")
    if plan.parallelism.replicas != service.replicas:
        raise ConfigError(f"the plan has {plan.parallelism.replicas} replicas, not {service.replicas}")
    for name, value in service.engine.items():
        if name in plan.engine.args and plan.engine.args[name] != value:
            raise ConfigError(f"the plan has {name} {plan.engine.args[name]}, not {value}; plan anew with it")


# --- rehearsals ----------------------------------------------------------------------------------------

# What an engine on CPUs is told in place of the real one's arguments about memory.
_SMALL = {
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 2048,
    "kv_cache_memory_bytes": 64 * MIB,
    "gpu_memory_utilization": 0.9,
}
# Arguments that only the real engine can take.
_ONLY_REAL = {
    "quantization", "kv_cache_dtype", "gpu_memory_utilization", "trust_remote_code", "tokenizer_mode", "enable_eplb",
    "eplb_config", "speculative_config", "block_size", "enforce_eager", "revision", "load_format",
}  # fmt: skip
# Facts about vLLM's CPU platform: it finds no NUMA nodes on small machines; a rank to a thread, or they stumble.
_ENV = {**ON_CPU, "ORCHESTRATOR_EMULATE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
# A rank's process with torch and vLLM loaded, beside its weights; the engine's own processes.
# Measured as the sum of proportional set sizes, TP 8 × PP 2 of kimi-k2-mini.
_RANK_BYTES = GIB * 5 // 8
_ENGINE_BYTES = 2 * GIB


@dataclass(frozen=True)
class Rehearsal:
    """The real model planned on the real GPUs; a small one of its architecture run by that plan, on CPUs.

    gpus: the cluster to emulate where none is addressed, as `--gpus` has it; None: the one the catalogue names.
    """

    known: Catalog
    gpus: str | None = None
    model: str = ""

    def resolve(self, model: str, say: Callable[[str], None], from_cache: bool = True) -> models.Deployable:  # noqa: ARG002 - built on every host
        stand_in = models.resolve(self._stand_in(model), say)
        entry = entry_of(model, self.known)
        aliases = (entry.hf_id, entry.default_checkpoint) if entry else ()
        return replace(stand_in, aliases=tuple(dict.fromkeys(aliases)), engine={}, env={}, weights_bytes=None)

    def start_cluster(self, say: Callable[[str], None]) -> Cluster:
        nodes = [
            EmulatedNode(node.name, node.num_gpus, self.known.gpus.resolve(node.gpu_type).ray_label)
            for node in parse_gpus(self.gpus or self._usual_gpus(), self.known.gpus).nodes
        ]
        cluster = start_local(say, nodes)
        try:
            _wait_for_nodes(cluster, len(nodes), say)
        except BaseException:
            if cluster.is_new:
                local_ray.stop()
            raise
        return cluster

    def fetch(self, service: Service, model: models.Deployable, api: RayApi, view: View) -> None:
        """Nothing: the small model is built on each host."""

    def plan(self, service: Service, live: Live) -> Planned | None:
        if not live.is_emulated:
            kind = "are real" if live.has_gpus else "do not exist"
            raise ApplyFailed(
                f"the GPUs of {live.url} {kind}: a rehearsal needs an emulated cluster; `orchestrator down` ends the "
                "Ray that was started here, and the next --emulate starts an emulated one"
            )
        cluster = snapshot_of(live, self.known.gpus)
        plan = plan_of(_asked(service), cluster, self.known)
        kept = {name: value for name, value in service.engine.items() if name not in _ONLY_REAL}
        engine = {**kept, **_degrees(plan), **_SMALL}
        small = Asked(_plannable(self._stand_in(service.model)), engine, service.replicas)
        contents = plan_of(small, cluster, self.known)
        _check_memory(plan, live)
        return Planned(plan, contents, engine, {**_ENV, **contents.engine.env})

    def _stand_in(self, model: str) -> str:
        if model in models.DEMOS:
            return model
        return stand_in_for(find_model(model, self.known).architecture)

    def _usual_gpus(self) -> str:
        entry = entry_of(self.model, self.known)
        if entry is None or not entry.presets:
            raise ConfigError(f"say which GPUs to emulate for {self.model}, for example --gpus 4xH100")
        return f"{entry.presets[0].num_gpus}x{entry.presets[0].gpu}"


def _degrees(plan: Plan) -> dict[str, Any]:
    """The layout of a plan as engine arguments."""
    names = (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "decode_context_parallel_size",
        "enable_expert_parallel", "expert_placement_strategy",
    )  # fmt: skip
    return {name: plan.engine.args[name] for name in names if name in plan.engine.args}


def _wait_for_nodes(cluster: Cluster, count: int, say: Callable[[str], None], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    api = cluster.api()
    while (there := len(api.nodes())) < count:
        if time.monotonic() > deadline:
            raise ClusterUnavailable(f"only {there} of {count} emulated nodes came up; see the logs of Ray")
        say(f"emulated nodes: {there} of {count}")
        time.sleep(0.5)


def _check_memory(plan: Plan, live: Live) -> None:
    """Refuse a rehearsal that the machines' memory cannot hold; raises `ApplyFailed` with what is needed and there."""
    machines = {node.name: node for node in live.nodes}
    ranks = Counter(machines[rank.node].address for rank in plan.ranks)
    for node in live.nodes:
        needed = ranks[node.address] * _RANK_BYTES + _ENGINE_BYTES
        if node.memory_available_bytes is not None and ranks[node.address] and node.memory_available_bytes < needed:
            raise ApplyFailed(
                f"too little memory to rehearse {ranks[node.address]} ranks on {node.address}: about "
                f"{format_bytes(needed)} are needed, {format_bytes(node.memory_available_bytes)} are free; rehearse on "
                "fewer GPUs (--gpus), or free some"
            )
