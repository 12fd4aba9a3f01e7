"""What Ray's launcher left on this machine is read by Ray's rules, and only what is this user's own is believed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ClusterUnavailable, ConfigError
from orchestrator.remote import ray_up
from orchestrator.remote.cluster_file import ClusterFile, read_cluster_file
from tests.unit.remote.conftest import SHIPPED


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "cluster-configs"
    shutil.copytree(SHIPPED, folder)
    (folder / "notes.yaml").write_text("[")
    return folder


def write_state(
    temporary: Path, name: str, head: str = "10.0.0.1", state: str = "running", status: str = "up-to-date"
) -> Path:
    path = temporary / "ray" / f"cluster-{name}.state"
    nodes = {
        head: {"tags": {"ray-node-type": "head", "ray-node-status": status}, "state": state},
        "10.0.0.2": {"tags": {"ray-node-type": "worker"}, "state": "terminated"},
    }
    path.write_text(json.dumps(nodes))
    os.utime(path, (100.0, 100.0))
    return path


def write_resolved(temporary: Path, name: str, provider: str, **auth: Any) -> Path:
    path = temporary / f"ray-config-{name}"
    config = {"cluster_name": name, "provider": {"type": provider}, "auth": auth}
    path.write_text(json.dumps({"_version": 1, "config": config}))
    os.utime(path, (200.0, 200.0))
    return path


def names(configs: Path) -> list[tuple[str, float]]:
    return [(each.file.name, each.at_s) for each in ray_up.clusters_up(configs)]


def test_a_cluster_whose_head_runs_is_up(temporary: Path, configs: Path) -> None:
    assert names(configs) == []
    write_state(temporary, "kimi-16xh100")
    write_state(temporary, "kimi-16xh200", state="terminated")
    write_state(temporary, "deepseek-8xh200", status="update-failed")
    write_state(temporary, "kimi-8xb200", head="10.9.9.9")
    write_state(temporary, "of-no-file")
    assert names(configs) == [("kimi-16xh100", 100.0)]


@pytest.mark.parametrize("content", ["", "[]", '{"10.0.0.1": 7}', "\x00"])
def test_a_state_file_that_makes_no_sense_is_none(content: str, temporary: Path, configs: Path) -> None:
    write_state(temporary, "kimi-16xh100").write_text(content)
    assert names(configs) == []


def test_files_of_other_users_are_not_believed(temporary: Path, configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(temporary, "kimi-16xh100")
    resolved = write_resolved(temporary, "kimi-16xh100-aws", "aws", ssh_private_key="/theirs.pem")
    elsewhere = temporary / "elsewhere"
    resolved.rename(elsewhere)
    resolved.symlink_to(elsewhere)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert names(configs) == []


def test_a_clouds_cluster_is_up_if_ray_finds_its_head(
    temporary: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def head_ip(file: ClusterFile) -> str:
        asked.append(file.name)
        if file.provider == "gcp":
            raise ClusterUnavailable("no head")
        return "192.0.2.7"

    monkeypatch.setattr(ray_up, "head_ip", head_ip)
    write_resolved(temporary, "kimi-16xh100-aws", "aws")
    write_resolved(temporary, "kimi-16xh100-gcp", "gcp")
    assert names(configs) == [("kimi-16xh100-aws", 200.0)]
    assert asked == ["kimi-16xh100-aws", "kimi-16xh100-gcp"], "only clusters that Ray's launcher touched"


def test_the_key_is_the_files_else_the_one_that_ray_made(
    temporary: Path, file: ClusterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(temporary))
    with pytest.raises(ConfigError, match=r"auth\.ssh_private_key: there is no .*/\.ssh/id_ed25519"):
        ray_up.find_head(file)
    (temporary / ".ssh").mkdir()
    (temporary / ".ssh/id_ed25519").write_text("")
    assert ray_up.find_head(file).private_key == temporary / ".ssh/id_ed25519"
    aws = read_cluster_file(SHIPPED / "kimi-16xh100-aws.yaml")
    monkeypatch.setattr(ray_up, "head_ip", lambda _file: "192.0.2.7")
    assert ray_up.find_head(aws).private_key is None
    (temporary / "made.pem").write_text("")
    write_resolved(temporary, "kimi-16xh100-aws", "aws", ssh_private_key=str(temporary / "made.pem"))
    found = ray_up.find_head(aws)
    assert (found.host, found.private_key) == ("192.0.2.7", temporary / "made.pem")


@pytest.mark.parametrize(
    ("output", "address"),
    [
        ("10.0.0.1\n", "10.0.0.1"),
        ("Loaded cached provider configuration\nIf you experience issues …\n192.0.2.7\n", "192.0.2.7"),
        ("head.example.org", "head.example.org"),
        ("-oProxyCommand=x", None),
        ("", None),
    ],
)
def test_the_address_is_the_last_word_of_what_ray_says(output: str, address: str | None) -> None:
    assert ray_up.read_head_ip(output) == address


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            "2026-11-24 08:27:18,563\tWARN commands.py:1574 -- \x1b[33mHead node is in state None.\x1b[39m\n",
            "Head node is",
        ),
        (
            "Traceback …\nModuleNotFoundError: No module named 'boto3'\n\n",
            "ModuleNotFoundError: No module named 'boto3'",
        ),
        ("", "no reason given"),
    ],
)
def test_rays_reason_is_its_last_line(output: str, told: str) -> None:
    assert ray_up.last_words(output).startswith(told)


@pytest.mark.parametrize(
    ("environ", "platform", "folder"),
    [
        ({"RAY_TMPDIR": "/r", "TMPDIR": "/t"}, "linux", "/r/ray"),
        ({"TMPDIR": "/t"}, "linux", "/t/ray"),
        ({"TMPDIR": "/t"}, "darwin", "/tmp/ray"),
        ({}, "linux", "/tmp/ray"),
    ],
)
def test_rays_folder_is_found_by_rays_rule(environ: dict[str, str], platform: str, folder: str) -> None:
    assert ray_up.ray_temporary_folder(environ, platform) == Path(folder)
