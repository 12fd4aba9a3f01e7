"""What `ray up` needs from this computer is asked before it, each answer with its way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator.errors import ConfigError
from orchestrator.probes.cluster_file import missing_here
from scripts.cluster_configs import FOLDER

PROJECT = FOLDER.parent


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with everything in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (".ray/auth_token", ".ssh/id_ed25519"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("0123456789\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("name", ["kimi-16xh100", "kimi-16xh100-aws", "cpu-rehearsal"])
def test_a_shipped_file_is_ready_where_token_and_key_are(operator: Path, name: str) -> None:
    assert missing_here(FOLDER / f"{name}.yaml", PROJECT) == ()


def test_a_missing_token_is_named_with_the_command_that_makes_it(operator: Path) -> None:
    (operator / ".ray/auth_token").unlink()
    (line,) = missing_here(FOLDER / "kimi-16xh100-aws.yaml", PROJECT)
    assert f"no Ray token in {operator}/.ray/auth_token" in line
    assert f"run: ray get-auth-token --generate && chmod 600 {operator}/.ray/auth_token" in line


def test_an_empty_token_and_one_that_others_read_are_named(operator: Path) -> None:
    token = operator / ".ray/auth_token"
    token.chmod(0o644)
    assert "chmod 600" in missing_here(FOLDER / "kimi-16xh100.yaml", PROJECT)[0]
    token.write_text(" \n")
    assert "is empty" in missing_here(FOLDER / "kimi-16xh100.yaml", PROJECT)[0]


def test_an_ssh_key_that_is_missing_or_open_is_named(operator: Path) -> None:
    key = operator / ".ssh/id_ed25519"
    key.chmod(0o640)
    assert missing_here(FOLDER / "kimi-16xh100.yaml", PROJECT) == (
        f"others can read the SSH key {key}, so that ssh refuses it; run: chmod 600 {key}",
    )
    key.unlink()
    assert "there is no" in missing_here(FOLDER / "kimi-16xh100.yaml", PROJECT)[0]


def test_sources_are_looked_for_where_ray_up_runs(operator: Path) -> None:
    lines = missing_here(FOLDER / "kimi-16xh100.yaml", operator)
    assert [line.split(" in ")[0] for line in lines] == [
        f"file_mounts: there is no {name}" for name in ("pyproject.toml", "README.md", "orchestrator", "deployments")
    ]
    assert all("run in the project's folder" in line for line in lines)


def test_a_placeholder_left_in_the_file_is_named(operator: Path) -> None:
    (line,) = missing_here(FOLDER / "kimi-16xh100-gcp.yaml", PROJECT)
    assert line.startswith("provider.project_id is still YOUR-PROJECT")


def test_a_file_that_ray_cannot_take_is_refused(operator: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump({"nodes": [{"name": "a", "gpu_type": "H100", "num_gpus": 8}]}))
    with pytest.raises(ConfigError, match="a list of nodes, for plans only"):
        missing_here(plain, PROJECT)
    wrong = tmp_path / "wrong.yaml"
    document = yaml.safe_load((FOLDER / "kimi-16xh100.yaml").read_text())
    wrong.write_text(yaml.safe_dump({**document, "file_mounts": ["a"]}))
    with pytest.raises(ConfigError, match="file_mounts"):
        missing_here(wrong, PROJECT)
