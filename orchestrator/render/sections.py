"""The parts that all of Ray's cluster files have: what is copied, what is set up, how Ray is started."""

from __future__ import annotations

from collections import Counter

from orchestrator.cluster.labels import HOST
from orchestrator.plan import Plan
from orchestrator.render import node_setup
from orchestrator.render.target import Target
from orchestrator.render.text import commands

# Ray's objects are small here: weights go from disk to GPU, tokens over sockets.
OBJECT_STORE_BYTES = 8 * 1024**3
_HEALTH_CHECKS = """\
# A node that falls silent is given up after 3 health checks of 1 + 2 s. Ray's own limits add up to 65 s.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3
"""
_SOURCE = ("pyproject.toml", "README.md", "orchestrator", "deployments")


def gpus(plan: Plan) -> str:
    """`2 × 8 H100`, as the head of a file says it."""
    counts = Counter((node.num_gpus, node.gpu_type) for node in plan.cluster.nodes)
    return ", ".join(
        f"{number} × {kind}" if nodes == 1 else f"{nodes} × {number} {kind}" for (number, kind), nodes in counts.items()
    )


def node_type_name(gpu_type: str, num_gpus: int) -> str:
    """`h100-x8`: the label `orchestrator/node-type`, and the name of a group of equal machines."""
    return f"{gpu_type}-x{num_gpus}".lower()


def checkpoint_bytes(plan: Plan) -> int:
    """The weights of all ranks of one copy: the checkpoint's size, or a little more where ranks share weights."""
    first = [rank for rank in plan.ranks if rank.replica == 0 and rank.data_rank == 0]
    return sum(rank.memory.weights_bytes for rank in first)


def engine(plan: Plan, further: tuple[str, ...] = ()) -> list[str]:
    """The commands that install the planned engine."""
    kernels = [node_setup.DEEP_GEMM] if "deep_gemm_needed" in {warning.code for warning in plan.warnings} else []
    return [node_setup.install(plan.engine.version, further), *kernels, node_setup.ON_PATH]


def files(target: Target) -> str:
    """`file_mounts`: the token and this project's source."""
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


def setup(everywhere: list[str], head: list[str], workers: list[str]) -> str:
    """The three lists of setup commands."""
    return (
        commands("setup_commands", everywhere)
        + commands("head_setup_commands", head)
        + commands("worker_setup_commands", workers)
    )


def start(
    before: str, further: str, object_store_bytes: int, labels: dict[str, str] | None = None, tries: int = 1
) -> str:
    """`ray start` on the head and on the workers. Nothing but SSH is meant to be reached from outside.

    before: for the head alone; further: options of every node; tries: how often a node may fail to start.
    """
    words = ",".join(f"{key}={value}" for key, value in {HOST: "$VLLM_HOST_IP", **(labels or {})}.items())
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
