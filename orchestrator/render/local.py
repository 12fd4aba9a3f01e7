"""Hosts that are there already, reached over SSH: Ray's provider `local`."""

from __future__ import annotations

import textwrap
from collections import Counter

from orchestrator.cluster.labels import EMULATED
from orchestrator.demo import stand_in_for
from orchestrator.plan import Plan, PlannedNode
from orchestrator.render import node_setup, sections
from orchestrator.render.target import Target
from orchestrator.render.text import flow

MODEL_FOLDER = "/mnt/nvme/moe-orchestrator"
_REHEARSAL_OBJECT_STORE_BYTES = 256 * 1024**2
# Facts about vLLM's CPU platform: it finds no NUMA nodes on small machines, and answers wrongly in eager mode.
_REHEARSAL_ENV = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_CI_ENV": "1", "OMP_NUM_THREADS": "1"}


def addresses(plan: Plan, target: Target) -> tuple[str, ...]:
    """The hosts, head first; 10.0.0.1, 10.0.0.2, … where none are named."""
    return target.hosts or tuple(f"10.0.0.{index + 1}" for index in range(len(plan.cluster.nodes)))


def machines(plan: Plan, target: Target) -> str:
    """`provider:` and the ways in."""
    hosts = addresses(plan, target)
    key = "~/.ssh/id_ed25519"
    return f"""\
cluster_name: {target.name}

provider:
  type: local
  # As the hosts know one another. The head has GPUs and serves like the others.
  head_ip: {hosts[0]}
  worker_ips: {flow(list(hosts[1:]))}
  # What Ray's schema has no place for, and a plan is made from (docs/cluster-files.md).
  orchestrator:
{textwrap.indent(_hardware(plan, hosts), "    ")}
auth:
  ssh_user: ubuntu
  # The head gets a copy, since it is the head that starts the others.
  ssh_private_key: {key}
"""


def _hardware(plan: Plan, hosts: tuple[str, ...]) -> str:
    """`provider.orchestrator`: what most hosts are, and the others by name."""
    nodes = plan.cluster.nodes
    (gpu_type, num_gpus), _ = Counter(_kind(node) for node in nodes).most_common(1)[0]
    text = f"gpu_type: {gpu_type}\nnum_gpus: {num_gpus}\n"
    others = [(host, node) for host, node in zip(hosts, nodes, strict=True) if _kind(node) != (gpu_type, num_gpus)]
    if others:
        text += "nodes:\n"
    for host, node in others:
        text += f"  {host}: {{gpu_type: {node.gpu_type}, num_gpus: {node.num_gpus}}}\n"
    return text


def _kind(node: PlannedNode) -> tuple[str, int]:
    return node.gpu_type, node.num_gpus


def setup(plan: Plan, target: Target) -> str:
    """The setup commands."""
    hosts = addresses(plan, target)
    peer = hosts[1] if len(hosts) > 1 else node_setup.ANYWHERE
    if target.rehearsal:
        cache = "~/.cache/moe-orchestrator"
        scripts = [node_setup.PYTHON, node_setup.REHEARSAL_INSTALL, node_setup.ON_PATH]
        scripts += [node_setup.rehearsal_model(stand_in_for(plan.model.architecture))]
        scripts += [node_setup.node_env(cache, peer, _REHEARSAL_ENV)]
        return sections.setup(scripts, [], [])
    cache = MODEL_FOLDER
    scripts = [
        node_setup.PYTHON,
        node_setup.GPU_DRIVER,
        node_setup.model_disk(cache, sections.checkpoint_bytes(plan)),
        *sections.engine(plan),
        node_setup.node_env(cache, peer, {}),
    ]
    return sections.setup(scripts, [], [])


def start(plan: Plan, target: Target) -> str:
    """The start commands; a rehearsal declares the GPUs that are not there."""
    emulated = ""
    if target.rehearsal:
        num_gpus = plan.cluster.nodes[0].num_gpus
        kind = target.gpus.resolve(plan.cluster.nodes[0].gpu_type).ray_label
        # Ranks take a CPU each beside their GPU.
        emulated = (
            f""" --num-cpus={2 * num_gpus} --num-gpus={num_gpus} --resources='{{"accelerator_type:{kind}": 1}}'"""
        )
    store = _REHEARSAL_OBJECT_STORE_BYTES if target.rehearsal else sections.OBJECT_STORE_BYTES
    autoscaler = """\
# Ray's autoscaler v2 never starts the workers of a `local` provider (ray-project/ray issues 57153, 59905).
export RAY_enable_autoscaler_v2=0
# A host that is gone is waited for a year (seconds); Ray gives up after 15 minutes, and then for good.
export AUTOSCALER_NODE_START_WAIT_S=31536000
"""
    labels = {EMULATED: "true"} if target.rehearsal else {}
    return sections.start(autoscaler, emulated, store, labels, tries=3)
