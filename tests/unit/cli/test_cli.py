"""The command line: every command teaches, JSON is JSON, and an expected failure is one line and exit code 1."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli import main
from orchestrator.cli.app import COMMANDS, app, load
from orchestrator.cli.output import print_phases
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import front as fronts
from orchestrator.deploy import session
from orchestrator.deploy.apply import Outcome
from orchestrator.deploy.diff import Change
from orchestrator.deploy.service import Service


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(clusters, "find_cluster", lambda _address: None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that is a whole checkpoint."""
    folder = tmp_path / "My Model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    return folder


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def run_main(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Any, str]:
    """Exit code and stderr of the program as a shell sees it."""
    monkeypatch.setattr(sys, "argv", ["orchestrator", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_speaks_json(command: str) -> None:
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert "--json" in shown.output
    assert len(shown.output.splitlines()) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_listed_by_the_first_line_of_its_help(command: str) -> None:
    """The line stands apart from the command, so that listing imports none of them."""
    (listed,) = [each.help for each in app.registered_commands if each.name == command]
    assert load(command).help.strip().splitlines()[0].split() == str(listed).split()
    assert load(command).name == command


def test_the_models_that_have_a_name_are_listed() -> None:
    rows = json.loads(run("models", "--json").output)
    assert {"smol-moe", "kimi-k2-mini", "kimi-k2", "mixtral-8x22b"} <= {row["name"] for row in rows}
    assert all(row["description"] for row in rows)
    assert "smol-moe" in run("models").output


def test_a_dry_run_prints_what_serve_deploy_takes(model: Path) -> None:
    words = ["deploy", str(model), "--dry-run", "--max-model-len", "16K", "--no-auth", "--replicas", "2"]
    config = yaml.safe_load(run(*words).output)
    assert config == json.loads(run(*words, "--json").output)
    (application,) = config["applications"]
    assert application["name"] == "my-model"
    assert application["args"]["service"]["access"] == {"auth": False}
    assert application["args"]["llm_config"]["engine_kwargs"] == {"max_model_len": 16_384}
    assert application["args"]["llm_config"]["deployment_config"]["num_replicas"] == 2


def test_the_command_line_wins_over_the_file(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump({
        "model": str(model), "name": "a", "replicas": 3, "engine": {"seed": 1, "max_num_seqs": 8},
        "access": {"auth": False},
    }))  # fmt: skip
    for words in (["--seed", "2", "--auth", "--name", "b"], ["--name", "b", "--auth", "--seed=2"]):
        config = yaml.safe_load(run("deploy", "-f", str(path), "--dry-run", *words).output)
        (application,) = config["applications"]
        assert application["name"] == "b"
        assert application["args"]["service"]["replicas"] == 3
        assert application["args"]["service"]["access"]["auth"] is True
        assert application["args"]["llm_config"]["engine_kwargs"] == {"seed": 2, "max_num_seqs": 8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["deploy", "smol-mo"], "no model 'smol-mo'; did you mean smol-moe?"),
        (["deploy"], "name a MODEL, or a service file"),
        (["deploy", "kimi-k2", "--emulate", "--dry-run"], "a plan is tied to a cluster, and none runs"),
        (["deploy", "smol-moe", "-f", "x.yaml"], "name a MODEL, or a service file"),
        (["deploy", "-f", "absent.yaml"], "absent.yaml: No such file"),
        (["deploy", "smol-moe", "--max-modle-len", "5"], "did you mean --max-model-len"),
        (["deploy", "--max-model-len", "5", "smol-moe"], "name the MODEL before engine arguments"),
        (["deploy", "smol-moe", "--name", "A B"], "name: use lower-case letters"),
        (["deploy", "smol-moe", "extra"], "'extra' is not an option"),
        (["chat", "smol-moe", "hello"], "no front runs here"),
        (["chat", "smol-moe", "--json"], "--json needs a QUESTION"),
        (["logs", "smol-moe"], "no Ray runs here; start one with"),
        (["delete", "smol-moe"], "no Ray runs here"),
    ],
)
def test_an_expected_failure_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    code, said = run_main(capsys, monkeypatch, *words)
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in line


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(capsys, monkeypatch, "dploy")[0] == 2
    assert run_main(capsys, monkeypatch, "deploy", "smol-moe", "--port", "http")[0] == 2


def test_with_nothing_running_that_is_a_state_and_no_failure() -> None:
    shown = run("status", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.output) == {"ray": None, "front": None, "models": []}
    assert "not running" in run("status").output
    assert json.loads(run("down", "--json").stdout) == {"models": [], "front": False, "ray": False}
    assert "nothing was running" in run("down").output


@pytest.mark.parametrize("record", ['{"pid": 1}', '{"other": 5}', "[]"])
def test_a_record_of_another_version_is_no_running_front(tmp_path: Path, record: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "front.json").write_text(record)
    assert fronts.running_front() is None


def test_a_deployment_tells_where_to_call_and_never_the_key(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = Outcome("m", "updated", [Change("engine.seed", None, 7)], {"weights": 1.5, "first token": 0.5}, {})

    def deploy(service: Service, *_args: object) -> tuple[Outcome, str]:
        return outcome, "http://127.0.0.1:8000/v1"

    monkeypatch.setattr(session, "deploy", deploy)
    shown = run("deploy", str(model), "--json")
    document = json.loads(shown.stdout)
    key_path = tmp_path / "state" / "api-key"
    assert document["api_key_file"] == str(key_path)
    assert (document["action"], document["total_seconds"]) == ("updated", 2.0)
    assert document["changes"] == [{"path": "engine.seed", "before": None, "after": 7}]
    for words in (["--json"], []):
        assert key_path.read_text().strip() not in run("deploy", str(model), *words).output
    assert json.loads(run("deploy", str(model), "--no-auth", "--json").stdout)["api_key_file"] is None


def test_an_interrupted_deployment_is_exit_code_1(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "deploy", interrupted)
    code, said = run_main(capsys, monkeypatch, "deploy", str(model))
    assert code == 1
    assert "error: interrupted" in said


def test_phases_and_their_sum_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_phases({"weights": 1.5, "warm-up": 62.0})
    shown = [line.split(maxsplit=1)[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["weights", "warm-up", "together"]
