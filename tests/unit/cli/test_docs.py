"""The guides cannot drift: every sample command runs, every sample file is read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.front.settings_file import read_front_file
from orchestrator.catalog.registry import load_catalog
from orchestrator.cli.app import COMMANDS, load
from orchestrator.cluster.spec import load_cluster
from orchestrator.memory.host import host_need
from orchestrator.planner.arguments import DEFAULT_MAX_MODEL_LEN, DEFAULT_UTILIZATION
from orchestrator.planner.fitting import PRODUCTION_FROM, SMOKE_TEST_BELOW
from orchestrator.units import GIB, format_bytes
from orchestrator.weights.manifest import MANIFEST
from orchestrator.weights.notes import SIZE_TOLERANCE
from tests.unit.cli.runner import Runner

DOCS = Path(__file__).parents[3] / "docs"
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
PREFIX = "python -m orchestrator "


def blocks(guide: str, language: str) -> list[str]:
    text = (DOCS / guide).read_text(encoding="utf-8")
    return [body for kind, body in FENCE.findall(text) if kind == language]


def commands(guide: str) -> list[str]:
    return [line for body in blocks(guide, "bash") for line in body.splitlines() if line.strip()]


@pytest.mark.parametrize("command", commands("planner.md"))
def test_every_command_of_the_planners_guide_runs(command: str, run: Runner) -> None:
    assert command.startswith(PREFIX)
    code, out, err = run(*shlex.split(command.removeprefix(PREFIX)))
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("command", [command for command in commands("clusters.md") if command.startswith(PREFIX)])
def test_every_command_of_the_clusters_guide_that_needs_no_cluster_runs(
    command: str, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DOCS.parent)
    code, out, err = run(*shlex.split(command.removeprefix(PREFIX)))
    assert (code, err) == (0, "")
    assert out


def test_every_command_of_the_weights_guide_exists_with_its_options() -> None:
    """They need a hub or a cluster: what is checked is that the words are commands, and the options theirs."""
    found = commands("weights.md")
    assert found
    for command in found:
        assert command.startswith(PREFIX)
        name, *words = shlex.split(command.removeprefix(PREFIX))
        assert name in COMMANDS
        options = {option for parameter in load(name).params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_weights_guide_names_the_files_and_figures_that_the_code_uses() -> None:
    text = (DOCS / "weights.md").read_text(encoding="utf-8")
    assert f"`{MANIFEST}`" in text
    assert f"more than {SIZE_TOLERANCE:.0%}".replace("%", " %") in text
    need = host_need(8, 0)
    assert f"at least {format_bytes(need.memory_bytes)} of memory for 8 ranks" in text
    assert f"{format_bytes(need.shared_memory_bytes)} of it in `/dev/shm`" in text


@pytest.mark.parametrize(("number", "gpus"), [(0, 20), (1, 20), (2, 16)])
def test_every_cluster_file_of_the_guide_is_read(number: int, gpus: int, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(blocks("cluster-files.md", "yaml")[number])
    assert load_cluster(path).num_gpus == gpus


def test_the_catalogue_file_of_the_guide_is_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(blocks("planner.md", "yaml")[0])
    catalog = load_catalog(path)
    assert "our-moe" in catalog.names
    assert catalog.gpus.resolve("NVIDIA H900 300GB").memory_bytes == 290 * GIB


def test_the_guide_names_the_limits_that_the_planner_uses() -> None:
    text = (DOCS / "planner.md").read_text(encoding="utf-8")
    assert f"a utilisation of {DEFAULT_UTILIZATION:.2f}" in text
    assert f"a maximum length of {DEFAULT_MAX_MODEL_LEN:,} tokens" in text
    assert f"Below {SMOKE_TEST_BELOW:.0%}".replace("%", " %") in text
    assert f"from {PRODUCTION_FROM:.0%}".replace("%", " %") in text


def test_every_command_of_the_keys_guide_runs(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, on a store of their own."""
    monkeypatch.setattr("orchestrator.cli.keys.time", SimpleNamespace(time=lambda: 1_800_000_000.0))
    found = commands("keys.md")
    assert len(found) == 7
    for command in found:
        code, out, err = run(*shlex.split(command.removeprefix(PREFIX)))
        assert code == 0, err
        assert out


def test_the_settings_file_of_the_keys_guide_is_read(tmp_path: Path) -> None:
    path = tmp_path / "front.yaml"
    path.write_text(blocks("keys.md", "yaml")[0])
    assert read_front_file(path).cors_origins == ("https://app.example.org",)
