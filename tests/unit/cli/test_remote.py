"""A command for a cluster elsewhere is handed on whole; one that means this machine stays here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from orchestrator.cli import chat as chat_command
from orchestrator.cli import remote as commands
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy.clock import Clock
from orchestrator.errors import ClusterUnavailable
from orchestrator.remote import ray_up, which
from orchestrator.remote.cluster_file import ClusterFile, Head, read_cluster_file
from orchestrator.remote.forward import Remote, Streams, WayIn
from orchestrator.remote.messages import SentFile, Word
from orchestrator.remote.ray_up import BroughtUp
from tests.unit.cli.runner import Runner
from tests.unit.cli.test_docs import PREFIX
from tests.unit.cli.test_docs import commands as commands_of

CONFIGS = Path(__file__).parents[3] / "cluster-configs"
CLUSTER = CONFIGS / "kimi-16xh100.yaml"


class FakeRemote(Remote):
    """Notes what it is told to run, and ends with 7."""

    ran: ClassVar[list[tuple[str, list[Word]]]] = []

    def __init__(self, head: Head) -> None:
        self.head = head

    def deploy(
        self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams, address: tuple[str, int]
    ) -> int:
        self.ran.append((f"deploy to {address[0]}:{address[1]}", list(words)))
        return 7

    def ask(self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams) -> int:
        self.ran.append(("ask", list(words)))
        return 7

    def down(self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams) -> int:
        self.ran.append(("down", list(words)))
        return 7


@pytest.fixture(autouse=True)
def _remote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRemote, "ran", [])
    monkeypatch.setattr(commands, "Remote", FakeRemote)
    monkeypatch.setattr(clusters, "find_cluster", lambda _address: None)
    monkeypatch.setattr(ray_up, "find_head", lambda file: Head(file, "10.0.0.1", None))


TO_FRONT = "deploy to 127.0.0.1:8000"


@pytest.mark.parametrize(
    ("words", "how", "forwarded"),
    [
        (["deploy", "m"], TO_FRONT, ["deploy", "--", "m"]),
        (["deploy", "a b; $(c)"], TO_FRONT, ["deploy", "--", "a b; $(c)"]),
        (
            ["deploy", "--max-model-len", "8", "m", "--enforce-eager", "--name=x"],
            TO_FRONT,
            ["deploy", "--name", "x", "--", "--max-model-len", "8", "m", "--enforce-eager"],
        ),
        (
            ["deploy", "m", "--no-auth", "--no-wait", "--port", "9000", "--timeout", "5", "--front", "serve"],
            "deploy to 127.0.0.1:9000",
            ["deploy", "--no-auth", "--port", "9000", "--front", "serve", "--timeout", "5", "--no-wait", "--", "m"],
        ),
        (["deploy", "m", "--auth", "--replicas", "2"], TO_FRONT, ["deploy", "--replicas", "2", "--auth", "--", "m"]),
        (["deploy", "m", "--", "--odd"], TO_FRONT, ["deploy", "--", "m", "--odd"]),
        (["status", "--json"], "ask", ["status", "--json", "--"]),
        (["logs", "-Fn", "5", "m"], "ask", ["logs", "--lines", "5", "--follow", "--", "m"]),
        (["delete", "m"], "ask", ["delete", "--", "m"]),
        (["down"], "down", ["down", "--"]),
        (["plan", "m", "--live", "--tensor-parallel-size", "8", "--all"], "ask",
         ["plan", "--live", "--all", "--", "m", "--tensor-parallel-size", "8"]),
    ],
)  # fmt: skip
def test_every_word_is_handed_on(words: list[str], how: str, forwarded: list[str], run: Runner) -> None:
    code, out, err = run(words[0], "--cluster", CLUSTER, *words[1:])
    assert (code, out) == (7, "")
    assert err == f"cluster: kimi-16xh100 on ubuntu@10.0.0.1 ({CLUSTER})\n"
    assert FakeRemote.ran == [(how, forwarded)]
    # What is handed on means the same when it is read again.
    FakeRemote.ran.clear()
    run(forwarded[0], "--cluster", CLUSTER, *forwarded[1:])
    assert FakeRemote.ran == [(how, forwarded)]


def test_files_are_handed_on_with_their_content(run: Runner, tmp_path: Path) -> None:
    for name in ("my service.yaml", "rules.yaml"):
        (tmp_path / name).write_text("model: m\n")
    run("deploy", "-f", tmp_path / "my service.yaml", "--cluster", CLUSTER)
    run("plan", "m", "--live", "--cluster", CLUSTER, "--rules", tmp_path / "rules.yaml")
    run("deploy", "m", f"--plan={tmp_path}/rules.yaml", "--cluster", CLUSTER)
    assert [words for _, words in FakeRemote.ran] == [
        ["deploy", "--file", SentFile("my service.yaml", b"model: m\n"), "--"],
        ["plan", "--live", "--rules", SentFile("rules.yaml", b"model: m\n"), "--", "m"],
        ["deploy", "--plan", SentFile("rules.yaml", b"model: m\n"), "--", "m"],
    ]
    code, _, err = run("deploy", "-f", tmp_path / "none.yaml", "--cluster", CLUSTER)
    assert (code, err.splitlines()[-1]) == (1, f"error: {tmp_path}/none.yaml: No such file or directory")


@pytest.mark.parametrize("command", [line for line in commands_of("remote.md") if line.startswith(PREFIX)])
def test_every_command_of_the_guide_acts_on_the_cluster(
    command: str, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    which.remember(read_cluster_file(CLUSTER))
    monkeypatch.setattr(FakeRemote, "way_in", lambda remote: remote.ask(["chat"], {}, None), raising=False)
    run(*shlex.split(command.removeprefix(PREFIX)))
    assert [words[0] for _, words in FakeRemote.ran] == [shlex.split(command)[3]]


def test_wrong_usage_is_told_before_anybody_is_called(run: Runner) -> None:
    assert run("logs", "--cluster", CLUSTER)[0] == 2
    assert run("deploy", "m", "--port", "0", "--cluster", CLUSTER)[0] == 2
    assert FakeRemote.ran == []


def test_a_file_that_ray_up_cannot_have_taken_is_refused(run: Runner, tmp_path: Path) -> None:
    plain = tmp_path / "nodes.yaml"
    plain.write_text("nodes: [{name: a, gpu_type: H100, num_gpus: 8}]")
    code, _, err = run("status", "--cluster", plain)
    assert code == 1
    assert "not a cluster that `ray up` makes" in err


def test_the_cluster_used_last_is_meant_until_this_machine_is_named(run: Runner) -> None:
    which.remember(read_cluster_file(CLUSTER))
    run("status")
    assert FakeRemote.ran == [("ask", ["status", "--"])]
    code, out, err = run("status", "--address", "local")
    assert (code, err) == (0, "")
    assert out.startswith("ray: no Ray runs here")
    run("status")
    assert len(FakeRemote.ran) == 1


def test_down_here_leaves_the_cluster_elsewhere_the_last_one_used(run: Runner) -> None:
    which.remember(read_cluster_file(CLUSTER))
    assert run("down", "--address", "local")[1] == "nothing was running\n"
    assert which.last_used() == CLUSTER
    assert run("down", "--address", "10.0.0.1")[0] == 1
    assert FakeRemote.ran == []


def test_a_plan_from_files_is_made_here(run: Runner) -> None:
    which.remember(read_cluster_file(CLUSTER))
    code, out, _ = run("plan", "kimi-k2", "--cluster", CLUSTER)
    assert code == 0
    assert "kimi" in out.lower()
    assert FakeRemote.ran == []


@pytest.mark.parametrize(("ours", "began_s", "elsewhere"), [(True, 50.0, 1), (True, 150.0, 0), (False, 50.0, 0)])
def test_ray_up_after_the_ray_here_is_meant(
    ours: bool, began_s: float, elsewhere: int, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Ray that others started here, nobody knows when."""
    up = [BroughtUp(read_cluster_file(CLUSTER), 100.0)]
    monkeypatch.setattr(ray_up, "clusters_up", lambda _folder: up)
    monkeypatch.setattr(clusters, "find_cluster", lambda _address: clusters.Cluster("http://127.0.0.1:1", ours))
    monkeypatch.setattr(commands, "read_record", lambda _name: {"started": began_s})
    monkeypatch.setattr(clusters.Cluster, "api", refuse)
    run("logs", "m")
    assert len(FakeRemote.ran) == elsewhere


def refuse(_cluster: object) -> None:
    raise ClusterUnavailable("not in a test")


def test_a_chat_runs_here_through_the_way_in(run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "api-key"
    key.write_text("moe-theirs\n")
    key.chmod(0o600)
    asked = []

    class FakeApi:
        def __init__(self, base_url: str, key: str, clock: Clock = Clock()) -> None:
            asked.append((base_url, key))

        def chat(self, model: str, messages: object, **_options: object) -> list[str]:
            return ["Paris", "."]

    monkeypatch.setattr(FakeRemote, "way_in", lambda _self: WayIn("http://127.0.0.1:8123/v1", key), raising=False)
    monkeypatch.setattr(chat_command, "PublicApi", FakeApi)
    code, out, err = run("chat", "m", "What is the capital of France?", "--cluster", CLUSTER)
    assert (code, out, err.count("\n")) == (0, "Paris.\n", 1)
    assert asked == [("http://127.0.0.1:8123/v1", "moe-theirs")]
    assert FakeRemote.ran == []


def test_the_record_means_the_same_from_any_folder() -> None:
    which.remember(ClusterFile(Path("c.yaml"), "c", "local", "10.0.0.1", None, "me", None, None))
    assert which.last_used() == Path("c.yaml").absolute()
