"""A plan's cluster as the YAML that `ray up` takes: hosts reached over SSH, or machines of a cloud."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan, PlannedNode
from orchestrator.render import node_setup
from orchestrator.render.machines import Machine, find_machine
from orchestrator.render.text import commands, comment, flow

Provider = Literal["local", "aws", "gcp"]
MODEL_FOLDERS = {
    "local": "/mnt/nvme/moe-orchestrator",
    "aws": "/opt/dlami/nvme/moe-orchestrator",
    "gcp": "/mnt/disks/local-ssd/moe-orchestrator",
}
# The longest name that AWS and GCP take for a machine, less what Ray adds to it.
_CLUSTER_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
# Ray's objects are small here: weights go from disk to GPU, tokens over sockets.
_OBJECT_STORE_BYTES = 8 * 1024**3
_REHEARSAL_OBJECT_STORE_BYTES = 256 * 1024**2
_HEALTH_CHECKS = """\
# A node that falls silent is given up after 3 health checks of 1 + 2 s. Ray's own limits add up to 65 s.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3
"""
_SOURCE = ("pyproject.toml", "README.md", "orchestrator", "deployments")
# Facts about vLLM's CPU platform: it finds no NUMA nodes on small machines, and answers wrongly in eager mode.
_REHEARSAL_ENV = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_CI_ENV": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Target:
    """Where the cluster is to be.

    name: of the cluster; path: of the file, for the commands in its head; hosts: addresses for `local`, placeholders
    where there are none; spot: rent what the cloud may take back; rehearsal: CPUs stand in for the GPUs;
    made_by: the command that writes the file.
    """

    provider: Provider
    name: str
    path: str
    made_by: str
    hosts: tuple[str, ...] = ()
    spot: bool = False
    rehearsal: bool = False


def render_ray_cluster(plan: Plan, target: Target) -> str:
    """The whole file. Raises `ConfigError` for what the provider does not have."""
    _check(plan, target)
    if target.provider == "local":
        machines, setup, start = _local(plan, target), _local_setup(plan, target), _local_start(plan, target)
    else:
        machines, setup, start = _cloud(plan, target), _cloud_setup(plan, target), _cloud_start()
    return "\n".join((_head(plan, target), machines, _files(target), setup, start))


def _check(plan: Plan, target: Target) -> None:
    if not _CLUSTER_NAME.fullmatch(target.name):
        raise ConfigError(
            f"the cluster's name is {target.name!r}; it must be up to 40 lower-case letters, digits and '-', "
            "and begin with a letter"
        )
    for kind in sorted({node.gpu_type for node in plan.cluster.nodes}):
        if resolve_gpu(kind).vendor != "nvidia":
            raise ConfigError(f"{kind} is not an NVIDIA GPU; cluster files are written for vLLM's CUDA build only")
    if target.provider == "local":
        _check_hosts(plan, target)
    elif target.hosts or target.rehearsal:
        raise ConfigError(f"--host names machines that there are already; {target.provider} rents its own")


def _check_hosts(plan: Plan, target: Target) -> None:
    if target.spot:
        raise ConfigError("--spot needs a cloud, aws or gcp: hosts reached over SSH are not rented")
    if not target.hosts:
        return
    wrong = [host for host in target.hosts if not _HOST.fullmatch(host)]
    if wrong:
        raise ConfigError(f"--host {wrong[0]!r} is no address or host name")
    if len(set(target.hosts)) != len(target.hosts):
        raise ConfigError("--host names the same host twice")
    if len(target.hosts) != len(plan.cluster.nodes):
        raise ConfigError(
            f"{len(target.hosts)} hosts are named, but {plan.cluster.name} has {len(plan.cluster.nodes)} nodes: "
            "give --host once for each, the head first"
        )


# --- the head of the file --------------------------------------------------------------------------------


def _head(plan: Plan, target: Target) -> str:
    where = {"local": "hosts reached over SSH", "aws": "machines of AWS", "gcp": "machines of Google Cloud"}
    what = f"{_gpus(plan)}{', emulated on CPUs' if target.rehearsal else ''}, {where[target.provider]}"
    spot = ", at spot prices" if target.spot else ""
    return comment(f"""
{plan.model.name} on {what}{spot}. Planned as {plan.parallelism.label()}.

Ray's token first, once; without it `ray up` ends in a FileNotFoundError for ~/.ray/auth_token:
  ray get-auth-token --generate && chmod 600 ~/.ray/auth_token
Then, in the project's folder, since file_mounts are relative to where `ray up` runs:
  ray up {target.path}
  ray down {target.path}

{_edit(target)}

Written by: {target.made_by}
""")


def _gpus(plan: Plan) -> str:
    counts = Counter((node.num_gpus, node.gpu_type) for node in plan.cluster.nodes)
    return ", ".join(
        f"{gpus} × {kind}" if nodes == 1 else f"{nodes} × {gpus} {kind}" for (gpus, kind), nodes in counts.items()
    )


def _edit(target: Target) -> str:
    if target.provider == "local":
        return (
            "To edit: the addresses, the SSH user and key, and the folder for models. Hosts need Linux, bash with a "
            "~/.bashrc, rsync, and SSH from here and from the head. They trust one another on a private network: "
            "Ray and NCCL open ports on it, and a firewall must keep everybody else out."
        )
    if target.provider == "aws":
        return (
            "To edit: the region, and whose SSH is let in. AWS credentials are taken from the environment, as boto3 "
            "does. A quota for these machines, or a capacity block, must be there already."
        )
    return (
        "To edit: the project, the zone. Google credentials are taken from the environment (gcloud auth "
        "application-default login). A quota for these machines must be there already."
    )


# --- hosts reached over SSH --------------------------------------------------------------------------------


def addresses(plan: Plan, target: Target) -> tuple[str, ...]:
    """The hosts, head first; 10.0.0.1, 10.0.0.2, … where none are named."""
    return target.hosts or tuple(f"10.0.0.{index + 1}" for index in range(len(plan.cluster.nodes)))


def _local(plan: Plan, target: Target) -> str:
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


def _local_setup(plan: Plan, target: Target) -> str:
    hosts = addresses(plan, target)
    peer = hosts[1] if len(hosts) > 1 else node_setup.ANYWHERE
    if target.rehearsal:
        cache = "~/.cache/moe-orchestrator"
        scripts = [node_setup.PYTHON, node_setup.REHEARSAL_INSTALL, node_setup.ON_PATH]
        scripts += [node_setup.node_env(cache, peer, _REHEARSAL_ENV)]
        return _setup(scripts, [], [])
    cache = MODEL_FOLDERS["local"]
    scripts = [
        node_setup.PYTHON,
        node_setup.GPU_DRIVER,
        node_setup.model_disk(cache, _checkpoint_bytes(plan)),
        *_engine(plan),
        node_setup.node_env(cache, peer, {}),
    ]
    return _setup(scripts, [], [])


def _local_start(plan: Plan, target: Target) -> str:
    emulated = ""
    if target.rehearsal:
        num_gpus = plan.cluster.nodes[0].num_gpus
        kind = resolve_gpu(plan.cluster.nodes[0].gpu_type).ray_accelerator_type
        # Ranks take a CPU each beside their GPU.
        emulated = (
            f""" --num-cpus={2 * num_gpus} --num-gpus={num_gpus} --resources='{{"accelerator_type:{kind}": 1}}'"""
        )
    store = _REHEARSAL_OBJECT_STORE_BYTES if target.rehearsal else _OBJECT_STORE_BYTES
    autoscaler = """\
# Ray's autoscaler v2 never starts the workers of a `local` provider (ray-project/ray issues 57153, 59905).
export RAY_enable_autoscaler_v2=0
# A host that is gone is waited for a year (seconds); Ray gives up after 15 minutes, and then for good.
export AUTOSCALER_NODE_START_WAIT_S=31536000
"""
    labels = {"orchestrator/emulated": "true"} if target.rehearsal else {}
    return _start(autoscaler, emulated, store, labels, tries=3)


# --- machines of a cloud -------------------------------------------------------------------------------------


def _cloud(plan: Plan, target: Target) -> str:
    groups = Counter(find_machine(target.provider, node) for node in plan.cluster.nodes)
    is_aws = target.provider == "aws"
    provider = _aws_provider() if is_aws else _gcp_provider()
    head = _aws_machine("m7i.2xlarge", spot=False) if is_aws else _gcp_machine("n2-standard-8", 0, spot=False)
    kinds = "".join(f"      {_type_name(machine)}: {{gpu_type: {machine.gpu_type}}}\n" for machine in groups)
    types = "".join(_gpu_node_type(machine, number, target) for machine, number in groups.items())
    return f"""\
cluster_name: {target.name}
# All at once and for good: a model spread over machines needs every one of them.
max_workers: {groups.total()}

provider:
{provider}  # The exact GPU behind Ray's name for its family, for plans (docs/cluster-files.md).
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
{textwrap.indent(head, "      ")}{types}"""


def _type_name(machine: Machine) -> str:
    return f"{machine.gpu_type}-x{machine.num_gpus}".lower()


def _gpu_node_type(machine: Machine, number: int, target: Target) -> str:
    accelerator = resolve_gpu(machine.gpu_type).ray_accelerator_type
    is_aws = target.provider == "aws"
    config = (
        _aws_machine(machine.name, target.spot) if is_aws else _gcp_machine(machine.name, machine.num_gpus, target.spot)
    )
    resources = {"CPU": machine.num_cpus, "GPU": machine.num_gpus, f"accelerator_type:{accelerator}": 1}
    return f"""\
  {_type_name(machine)}:
    min_workers: {number}
    max_workers: {number}
    resources: {flow(resources)}
    labels: {{orchestrator/node-type: {_type_name(machine)}}}
    node_config:
{textwrap.indent(config, "      ")}"""


def _aws_provider() -> str:
    return """\
  type: aws
  region: us-east-1
  # One zone, so that machines are near one another; one that has these machines.
  availability_zone: us-east-1a
  cache_stopped_nodes: false
  # Ray makes a security group that lets in SSH, and whatever its own members send. To let in SSH from fewer
  # addresses, make a group yourself and name it in every node_config as SecurityGroupIds: [sg-…].
"""


def _aws_machine(name: str, spot: bool) -> str:
    market = "InstanceMarketOptions: {MarketType: spot}\n" if spot else ""
    return f"""\
InstanceType: {name}
{market}# AWS's own image with the NVIDIA driver, which also mounts the local disks at /opt/dlami/nvme.
ImageId: resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id
BlockDeviceMappings:
  - DeviceName: /dev/sda1
    Ebs: {{VolumeSize: 200, VolumeType: gp3, Encrypted: true}}
# The address book of the machine answers to its own processes only, by session.
MetadataOptions: {{HttpTokens: required, HttpPutResponseHopLimit: 1}}
"""


def _gcp_provider() -> str:
    return """\
  type: gcp
  region: us-central1
  availability_zone: us-central1-a
  project_id: YOUR-PROJECT
  # Ray makes no firewall rule here. The `default` network lets SSH in from everywhere (default-allow-ssh) and
  # its own members reach one another: narrow the first to your addresses, keep the second.
"""


def _gcp_machine(name: str, num_gpus: int, spot: bool) -> str:
    scheduling = ["onHostMaintenance: TERMINATE"] if num_gpus else []
    scheduling += ["provisioningModel: SPOT", "instanceTerminationAction: DELETE"] if spot else []
    entry = f"scheduling:\n  - {{{', '.join(scheduling)}}}\n" if scheduling else ""
    return f"""\
machineType: {name}
{entry}disks:
  - boot: true
    autoDelete: true
    type: PERSISTENT
    initializeParams:
      diskSizeGb: 200
      # Google's own image with the NVIDIA driver. Newer ones:
      # gcloud compute images list --project deeplearning-platform-release --no-standard-images
      sourceImage: projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2204-nvidia-580
"""


def _cloud_setup(plan: Plan, target: Target) -> str:
    cache = MODEL_FOLDERS[target.provider]
    everywhere = [
        node_setup.PYTHON_FROM_APT,
        *_engine(plan, node_setup.CLOUD_CLIENTS[target.provider]),
        node_setup.node_env(cache, node_setup.ANYWHERE, {}),
    ]
    disks = [node_setup.GCP_LOCAL_SSDS] if target.provider == "gcp" else []
    workers = [node_setup.GPU_DRIVER, *disks, node_setup.model_disk(cache, _checkpoint_bytes(plan))]
    return _setup(everywhere, [], workers)


def _cloud_start() -> str:
    return _start("", "", _OBJECT_STORE_BYTES)


# --- what both have --------------------------------------------------------------------------------------------


def _engine(plan: Plan, further: tuple[str, ...] = ()) -> list[str]:
    kernels = [node_setup.DEEP_GEMM] if "deep_gemm_needed" in {warning.code for warning in plan.warnings} else []
    return [node_setup.install(plan.engine.version, further), *kernels, node_setup.ON_PATH]


def _checkpoint_bytes(plan: Plan) -> int:
    """The weights of all ranks of one copy: the checkpoint's size, or a little more where ranks share weights."""
    first = [rank for rank in plan.ranks if rank.replica == 0 and rank.data_rank == 0]
    return sum(rank.memory.weights_bytes for rank in first)


def _files(target: Target) -> str:
    sources = (*_SOURCE, "scripts") if target.rehearsal else _SOURCE
    mounts = "".join(f'  "{node_setup.HOME}/{source}": {source}\n' for source in sources)
    return f"""\
file_mounts:
  # One token for the cluster and for who may use it.
  "~/.ray/auth_token": "~/.ray/auth_token"
  # For gated models (Llama, Mixtral): your Hugging Face token. Ray refuses to mount a file that is not there.
  # "~/.cache/huggingface/token": "~/.cache/huggingface/token"
{mounts}
rsync_exclude: ["**/__pycache__"]
"""


def _setup(everywhere: list[str], head: list[str], workers: list[str]) -> str:
    return (
        commands("setup_commands", everywhere)
        + commands("head_setup_commands", head)
        + commands("worker_setup_commands", workers)
    )


def _start(
    before: str, further: str, object_store_bytes: int, labels: dict[str, str] | None = None, tries: int = 1
) -> str:
    """`ray start` on the head and on the workers. Nothing but SSH is meant to be reached from outside.

    before: for the head alone; further: options of every node; tries: how often a node may fail to start.
    """
    words = ",".join(
        f"{key}={value}" for key, value in {"orchestrator/host": "$VLLM_HOST_IP", **(labels or {})}.items()
    )
    common = f"""--node-ip-address="$VLLM_HOST_IP"{further} \\
  --labels="{words}" --object-store-memory={object_store_bytes} --disable-usage-stats
"""
    head = f"""\
ray start --head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml \\
  {common}"""
    worker = f"""\
ray start --address="$RAY_HEAD_IP:6379" {common}"""
    environment = ". ~/moe-orchestrator/node-env.sh || exit 1\n"
    starts = {
        "head_start_ray_commands": environment + _HEALTH_CHECKS + before + node_setup.repeated(head, tries),
        "worker_start_ray_commands": environment + node_setup.repeated(worker, tries),
    }
    return "".join(commands(key, ["ray stop\n", start]) for key, start in starts.items())
