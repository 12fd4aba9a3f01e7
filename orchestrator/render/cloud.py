"""Machines that Ray rents: what AWS and Google Cloud have in common."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Protocol

from orchestrator.plan import Plan
from orchestrator.render import aws, gcp, node_setup, sections
from orchestrator.render.machines import Machine, find_machine
from orchestrator.render.target import Target
from orchestrator.render.text import flow


class Cloud(Protocol):
    """What a cloud's module has.

    MODEL_FOLDER: on the disks that come with the machines; CLIENTS: the packages by which Ray's autoscaler, on the
    head, rents machines; DISKS: the commands that make those disks usable; PROVIDER: the body of `provider:`;
    HEAD: the `node_config` of the head, which has no GPU.
    """

    MODEL_FOLDER: str
    CLIENTS: tuple[str, ...]
    DISKS: tuple[str, ...]
    PROVIDER: str
    HEAD: str

    def gpu_machine(self, machine: Machine, spot: bool, several: bool) -> str:
        """The `node_config` of a machine with GPUs; `several`: a replica may be spread over machines."""


CLOUDS: dict[str, Cloud] = {"aws": aws, "gcp": gcp}


def machines(plan: Plan, target: Target) -> str:
    """`provider:` and the node types. Raises `ConfigError` for machines that the cloud does not have."""
    cloud = CLOUDS[target.provider]
    groups = Counter(find_machine(target.provider, node) for node in plan.cluster.nodes)
    kinds = "".join(f"      {_name(machine)}: {{gpu_type: {machine.gpu_type}}}\n" for machine in groups)
    several = groups.total() > 1
    types = "".join(
        _node_type(machine, number, target, cloud.gpu_machine(machine, target.spot, several))
        for machine, number in groups.items()
    )
    return f"""\
cluster_name: {target.name}
# All at once and for good: a model spread over machines needs every one of them.
max_workers: {groups.total()}

provider:
{cloud.PROVIDER}  # The exact GPU behind Ray's name for its family, for plans (docs/cluster-files.md).
  orchestrator:
    node_types:
{kinds}
auth:
  ssh_user: ubuntu  # Ray makes a key pair of its own; ssh_private_key names another

head_node_type: head
available_node_types:
  # No GPU: it keeps the cluster together, and is what SSH reaches.
  head:
    resources: {{CPU: 8}}
    labels: {{orchestrator/node-type: head}}
    node_config:
{textwrap.indent(cloud.HEAD, "      ")}{types}"""


def _name(machine: Machine) -> str:
    return sections.node_type_name(machine.gpu_type, machine.num_gpus)


def _node_type(machine: Machine, number: int, target: Target, node_config: str) -> str:
    accelerator = target.gpus.resolve(machine.gpu_type).ray_label
    resources = {"CPU": machine.num_cpus, "GPU": machine.num_gpus, f"accelerator_type:{accelerator}": 1}
    return f"""\
  {_name(machine)}:
    min_workers: {number}
    max_workers: {number}
    resources: {flow(resources)}
    labels: {{orchestrator/node-type: {_name(machine)}}}
    node_config:
{textwrap.indent(node_config, "      ")}"""


def setup(plan: Plan, target: Target) -> str:
    """The setup commands."""
    cloud = CLOUDS[target.provider]
    everywhere = [
        node_setup.PYTHON_FROM_APT,
        *sections.engine(plan, cloud.CLIENTS),
        node_setup.node_env(cloud.MODEL_FOLDER, node_setup.ANYWHERE, {}),
    ]
    disk = node_setup.model_disk(cloud.MODEL_FOLDER, sections.checkpoint_bytes(plan))
    return sections.setup(everywhere, [], [node_setup.GPU_DRIVER, *cloud.DISKS, disk])


def start() -> str:
    """The start commands."""
    return sections.start("", "", sections.OBJECT_STORE_BYTES)
