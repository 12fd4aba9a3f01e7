"""cluster-configs/kimi-16xh100.yaml for hosts of the test bed: other addresses, and CPUs in place of the GPUs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator import demo
from orchestrator.cli.planning import plan_for
from orchestrator.cluster.spec import parse_gpus
from orchestrator.render.ray_cluster import render_ray_cluster
from orchestrator.render.target import Target
from orchestrator.store.home import subfolder
from tests.cluster.host import Host

SHIPPED = "kimi-16xh100"
_GPUS = 8
_STAND_IN = "kimi-k2-mini"


def cluster_file(addresses: tuple[str, str], key: Path, num_gpus: int = _GPUS, gpu_type: str = "H100") -> str:
    """What `cluster-config kimi-k2 --gpus 16xH100 --provider local --rehearsal --host … --host …` writes.

    key: to come in with; SSH itself reads `~` by the user database, which knows nothing of a test's home.
    num_gpus, gpu_type: what is emulated on a host; other than 8 × H100 where a test has no time for 16 ranks.
    """
    target = Target("local", SHIPPED, "FILE", made_by="the tests", hosts=addresses, rehearsal=True)
    text = render_ray_cluster(plan_for("kimi-k2", parse_gpus("16xH100")), target)
    for shipped, ours, times in (
        ("ssh_private_key: ~/.ssh/id_ed25519\n", f"ssh_private_key: {key}\n", 1),
        (f"--num-cpus={2 * _GPUS} --num-gpus={_GPUS} ", f"--num-cpus={2 * num_gpus} --num-gpus={num_gpus} ", 2),
        (f"    num_gpus: {_GPUS}\n", f"    num_gpus: {num_gpus}\n", 1),
        ("    gpu_type: H100\n", f"    gpu_type: {gpu_type}\n", 1),
        ('"accelerator_type:H100"', f'"accelerator_type:{gpu_type}"', 2),
    ):
        assert text.count(shipped) == times, (shipped, text)
        text = text.replace(shipped, ours)
    return text


def bring_stand_in(hosts: Sequence[Host]) -> None:
    """The small model on every host's disk, made already: they have no way to the index whose tokenizer it has."""
    made = demo.ensure(_STAND_IN, subfolder("cache"), progress=lambda line: print(line, file=sys.__stderr__))
    for host in hosts:
        shutil.copytree(made, host.home / ".orchestrator/cache" / made.name)
        (host.home / ".orchestrator").chmod(0o700)
