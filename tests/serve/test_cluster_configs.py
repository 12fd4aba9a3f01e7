"""The shipped cluster files as Ray's own launcher reads them; no cluster is started."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from scripts.cluster_configs import FOLDER, SHIPPED, Shipped

pytestmark = pytest.mark.serve
every_file = pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
LISTS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
# node-env.sh is on the hosts only (1090), and what a host's ~/.bashrc is to expand stays as it is (2016).
EXCLUDED = "SC1090,SC2016"
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def document(shipped: Shipped) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / f"{shipped.name}.yaml").read_text(encoding="utf-8"))
    return loaded


def commands(shipped: Shipped) -> Iterator[str]:
    loaded = document(shipped)
    for key in (*LISTS, *STARTS):
        yield from loaded[key]


@every_file
def test_ray_up_takes_the_file_as_it_is(shipped: Shipped) -> None:
    """Prepared as `ray up` prepares it, defaults and provider included, the file meets Ray's schema."""
    prepared = prepare_config(document(shipped))
    validate_config(prepared)
    workers = sum(kind.get("min_workers", 0) for kind in prepared["available_node_types"].values())
    nodes = 2 if shipped.gpus.startswith("16x") else 1
    assert workers == (nodes - 1 if shipped.provider == "local" else nodes)


@every_file
def test_every_command_is_sound_shell_the_way_ray_wraps_it(shipped: Shipped) -> None:
    for command in commands(shipped):
        *_, quoted = _with_interactive(command)
        (script,) = shlex.split(quoted)
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        # Bash only warns of a here-document that runs to the end of the text, so that silence is asked for.
        assert (checked.returncode, checked.stderr) == (0, "")


def shellcheck() -> str:
    """ShellCheck as the `dev` extra installs it, or the system's."""
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, "ShellCheck is missing; pip install -e '.[dev]' brings it"
    return found


@every_file
def test_every_command_passes_shellcheck(shipped: Shipped) -> None:
    """Each as Ray runs it: a bash script of its own."""
    for command in commands(shipped):
        checked = subprocess.run(
            [shellcheck(), "--shell=bash", f"--exclude={EXCLUDED}", "-"],
            input=command, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, f"{command}\n{checked.stdout}{checked.stderr}"


@every_file
def test_ray_start_knows_every_option_it_is_given(shipped: Shipped) -> None:
    known = {option for parameter in start.params for option in parameter.opts}
    lines = [command for key in STARTS for command in document(shipped)[key] if "ray start" in command]
    for line in lines:
        words = shlex.split(line[line.index("ray start") :])
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= known
