"""Commands from a laptop for a cluster elsewhere, over a real sshd: as if they ran here, none left running there."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

import openai
import psutil
import pytest
import yaml

from orchestrator.deploy.front import FrontRecord, ensure_front, stop_front
from orchestrator.errors import ClusterUnavailable
from orchestrator.remote.cluster_file import read_cluster_file
from orchestrator.remote.ray_up import head_ip
from tests.ports import free_port
from tests.serve.front_process import eventually
from tests.serve.ssh_head import ROOT, TOKEN, Laptop, SshHead, interrupt, make_key, running_head

# Several commands a test, of which each starts Python twice.
pytestmark = [pytest.mark.serve, pytest.mark.timeout(180)]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[SshHead]:
    with running_head(tmp_path) as one:
        yield one


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    one = Laptop(tmp_path / "laptop of mine")
    yield one
    for record in one.state.glob("clusters/*/tunnel.json"):
        psutil.Process(json.loads(record.read_text())["pid"]).kill()


@pytest.fixture
def front(head: SshHead, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontRecord]:
    """A real front on the head, with a replica of `smol` behind it."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(head.home / ".orchestrator"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    record = ensure_front(port=free_port())
    command = [sys.executable, "-m", "tests.serve.fake_replica", record.control_url, "smol", "smol-1"]
    replica = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert replica.stdout is not None
    assert replica.stdout.readline() == "announced\n"
    yield record
    replica.kill()
    replica.wait()
    stop_front()


def ask(base_url: str, key_file: Path) -> str:
    client = openai.OpenAI(base_url=base_url, api_key=key_file.read_text().strip(), timeout=20)
    question = [{"role": "user", "content": "Hello"}]
    return str(client.chat.completions.create(model="smol", messages=question).choices[0].message.content)


# --- a command there is a command here -----------------------------------------------------------------


def test_words_streams_and_exit_codes_pass_through(head: SshHead, laptop: Laptop) -> None:
    code, out, err = laptop.run("delete", "exit-7", "--json", "--cluster", head.cluster_file)
    assert code == 7
    told = json.loads(out)
    assert told["words"] == ["delete", "--json", "--", "exit-7"]
    assert told["ray"] == "http://127.0.0.1:8265"
    said = f"cluster: rehearsal on {getuser()}@10.255.0.1 ({head.cluster_file})"
    assert err.splitlines() == [said, "one line of progress …"]


@pytest.mark.parametrize("word", ["it's", '"$(id)"', "a b", "; touch x", "--x=`id`", "ünï\n‽"])
def test_no_word_is_read_by_a_shell(word: str, head: SshHead, laptop: Laptop) -> None:
    _, out, _ = laptop.run("deploy", "a model", "--cluster", head.cluster_file, "--max-model-len", word)
    assert json.loads(out)["words"] == ["deploy", "--", "a model", "--max-model-len", word]


def test_at_a_terminal_progress_moves_as_it_would_here(head: SshHead, laptop: Laptop) -> None:
    """The real program's own display of a phase that runs: it moves, and gives the cursor back."""
    head.install(real=True)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "orchestrator", "delete", "smol", "--cluster", str(head.cluster_file)]
    environ = {**laptop.environ, "TERM": "xterm"}
    environ.pop("NO_COLOR")
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=laptop.folder)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other side of a terminal is gone
        while block := os.read(ours, 65536):
            shown += block
    os.close(ours)
    assert process.wait(30) == 1
    assert "⠋ stopping …".encode() in re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown)
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_a_file_named_here_is_read_there(head: SshHead, laptop: Laptop) -> None:
    (laptop.folder / "my service.yaml").write_text("model: smol-moe\n")
    _, out, _ = laptop.run("deploy", "-f", "my service.yaml", "--cluster", head.cluster_file)
    told = json.loads(out)
    assert list(told["files"].values()) == ["model: smol-moe\n"]
    assert [Path(name).name for name in told["files"]] == ["my service.yaml"]
    assert not any(Path(name).exists() for name in told["files"])
    code, _, err = laptop.run("deploy", "-f", "missing.yaml", "--cluster", head.cluster_file)
    assert (code, err.splitlines()[-1]) == (1, "error: missing.yaml: No such file or directory")


def test_what_a_login_shell_prints_is_no_output_of_the_command(head: SshHead, laptop: Laptop) -> None:
    (head.home / ".bashrc").write_text("printf 'welcome, you have mail'\n")
    _, out, _ = laptop.run("logs", "m", "--cluster", head.cluster_file)
    assert json.loads(out)["words"] == ["logs", "--", "m"]


def test_no_argument_shows_up_among_the_processes(head: SshHead, laptop: Laptop) -> None:
    process = laptop.start("deploy", "--cluster", head.cluster_file, "--max-model-len", "my-secret", "wait")
    pid = running_pid(head)
    ssh = [each for each in psutil.Process(process.pid).children() if each.name() == "ssh"]
    assert ssh
    assert not any("my-secret" in word for each in ssh for word in each.cmdline())
    interrupt(process)
    process.communicate(timeout=30)
    assert not psutil.pid_exists(pid)


# --- nothing is left running there ---------------------------------------------------------------------


def running_pid(head: SshHead) -> int:
    """The process that the fake command `wait` is, once it waits."""
    trace = head.home / "wait"
    return int(eventually(lambda: trace.exists() and trace.read_text().strip(), 30))


def test_ctrl_c_interrupts_there_and_its_last_words_come(head: SshHead, laptop: Laptop) -> None:
    process = laptop.start("deploy", "wait", "--cluster", head.cluster_file)
    running_pid(head)
    interrupt(process)
    _, err = process.communicate(timeout=30)
    assert err.splitlines()[-1] == "error: interrupted; it is as it was before"
    assert process.returncode == 1
    assert (head.home / "wait").read_text() == "undone\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_however_the_command_here_ends_the_one_there_undoes(how: int, head: SshHead, laptop: Laptop) -> None:
    process = laptop.start("deploy", "wait", "--cluster", head.cluster_file)
    pid = running_pid(head)
    process.send_signal(how)
    process.communicate(timeout=30)
    eventually(lambda: (head.home / "wait").read_text() == "undone\n", 30)
    eventually(lambda: not psutil.pid_exists(pid))


def test_a_second_ctrl_c_leaves_at_once(head: SshHead, laptop: Laptop) -> None:
    process = laptop.start("deploy", "wait", "--cluster", head.cluster_file)
    running_pid(head)
    interrupt(process)
    assert process.stderr is not None
    while "undoing" not in process.stderr.readline():
        pass
    interrupt(process)
    _, err = process.communicate(timeout=5)
    assert "error: left; the command is interrupted on" in err
    assert process.returncode == 1
    eventually(lambda: (head.home / "wait").read_text() == "undone\n", 30)


def test_a_connection_that_breaks_ends_both_sides(head: SshHead, laptop: Laptop) -> None:
    process = laptop.start("deploy", "wait", "--cluster", head.cluster_file)
    running_pid(head)
    for relay in psutil.Process(process.pid).children(recursive=True):
        if relay in laptop.relays():
            relay.kill()
    _, err = process.communicate(timeout=30)
    assert "error: lost the line to" in err
    assert "undoes what it began" in err
    assert process.returncode == 1
    eventually(lambda: (head.home / "wait").read_text() == "undone\n", 30)


def test_a_network_that_falls_silent_ends_both_sides(head: SshHead, laptop: Laptop) -> None:
    """Packets dropped, nothing closed: the relay stands still."""
    process = laptop.start("deploy", "wait", "--cluster", head.cluster_file)
    running_pid(head)
    still = [each for each in psutil.Process(process.pid).children(recursive=True) if each in laptop.relays()]
    assert still
    for relay in still:
        relay.suspend()
    try:
        _, err = process.communicate(timeout=40)
        assert "error: lost the line to" in err
        eventually(lambda: (head.home / "wait").read_text() == "undone\n", 30)
    finally:
        for relay in still:
            with contextlib.suppress(psutil.NoSuchProcess):
                relay.kill()


# --- the way in ----------------------------------------------------------------------------------------


def test_deploy_speaks_of_the_way_in_from_here(head: SshHead, front: FrontRecord, laptop: Laptop) -> None:
    """The SDK here reaches the model there by what was printed."""
    code, out, _ = laptop.run("deploy", "smol", "--port", str(front.port), "--cluster", head.cluster_file)
    assert code == 0
    told = json.loads(out)["seen"]
    base_url, key_file = told["ORCHESTRATOR_SEEN_BASE_URL"], Path(told["ORCHESTRATOR_SEEN_KEY_FILE"])
    assert key_file.is_relative_to(laptop.state)
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert base_url != front.base_url, "the front's own port is taken on this machine: by the front"
    assert ask(base_url, key_file)
    # And without --cluster: the cluster used last, the same tunnel.
    _, again, _ = laptop.run("deploy", "smol", "--port", str(front.port))
    assert json.loads(again)["seen"] == told
    tunnel = json.loads(next(laptop.state.glob("clusters/*/tunnel.json")).read_text())
    psutil.Process(tunnel["pid"]).kill()
    code, answer, err = laptop.run("chat", "smol", "Hello")
    assert (code, err.count("\n")) == (0, 1)
    assert answer.strip()
    assert ask(base_url, key_file), "begun again on the port that clients know"


def test_down_closes_the_tunnel_and_forgets(head: SshHead, front: FrontRecord, laptop: Laptop) -> None:
    laptop.run("deploy", "smol", "--port", str(front.port), "--cluster", head.cluster_file)
    record = next(laptop.state.glob("clusters/*/tunnel.json"))
    pid = json.loads(record.read_text())["pid"]
    assert psutil.pid_exists(pid)
    code, out, _ = laptop.run("down")
    assert (code, json.loads(out)["words"]) == (0, ["down", "--"])
    eventually(lambda: not psutil.pid_exists(pid))
    assert not record.exists()
    assert not (record.parent / "api-key").exists()
    assert not (laptop.state / "cluster.json").exists()


def test_where_no_front_comes_up_no_tunnel_is_left(head: SshHead, laptop: Laptop) -> None:
    code, _, _ = laptop.run("deploy", "exit-3", "--port", str(free_port()), "--cluster", head.cluster_file)
    assert code == 3
    assert not list(laptop.state.glob("clusters/*/tunnel.json"))
    code, _, err = laptop.run("chat", "smol", "Hello")
    assert code == 1
    assert "no front runs on" in err.splitlines()[-1]


def test_the_port_here_is_that_of_the_front_where_it_is_free(head: SshHead, laptop: Laptop) -> None:
    port = free_port()
    _, out, _ = laptop.run("deploy", "smol", "--port", str(port), "--cluster", head.cluster_file)
    assert json.loads(out)["seen"]["ORCHESTRATOR_SEEN_BASE_URL"] == f"http://127.0.0.1:{port}/v1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        _, out, _ = laptop.run("deploy", "smol", "--port", str(port))
    assert json.loads(out)["seen"]["ORCHESTRATOR_SEEN_BASE_URL"] != f"http://127.0.0.1:{port}/v1"


# --- the real program there ----------------------------------------------------------------------------


def test_the_real_program_answers_there(head: SshHead, front: FrontRecord, laptop: Laptop) -> None:
    head.install(real=True)
    code, out, _ = laptop.run("status", "--json", "--cluster", head.cluster_file)
    told = json.loads(out)
    assert code == 0
    assert "cannot reach" in told["ray"]["error"] or "does not answer" in told["ray"]["error"]
    assert ask(told["front"]["base_url"], next(laptop.state.glob("clusters/*/api-key")))
    code, out, err = laptop.run("logs", "smol")
    assert (code, out) == (1, "")
    assert [line.split(":")[0] for line in err.splitlines()] == ["cluster", "error"]
    code, out, _ = laptop.run("down")
    assert (code, out) == (0, "stopped: front\n")
    assert not psutil.pid_exists(front.pid) or psutil.Process(front.pid).status() == psutil.STATUS_ZOMBIE


# --- what stands in the way ----------------------------------------------------------------------------


def error_of(laptop: Laptop, *words: str | Path) -> str:
    """The one line of a command that cannot do what it should."""
    code, out, err = laptop.run(*words)
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert len(err.splitlines()) <= 2
    return last


def test_a_head_that_cannot_be_reached_is_told_and_down_forgets_it(head: SshHead, laptop: Laptop) -> None:
    laptop.run("status", "--cluster", head.cluster_file)
    head.stop()
    assert "cannot reach" in (told := error_of(laptop, "status"))
    assert f"ray up {head.cluster_file}" in told
    assert "it is forgotten here, and nothing was stopped there" in error_of(laptop, "down")
    assert not (laptop.state / "cluster.json").exists()


def test_a_way_that_answers_nothing_is_given_up(head: SshHead, laptop: Laptop) -> None:
    head.write_cluster_file(ssh_proxy_command="sleep 25")
    began_s = time.monotonic()
    assert "cannot reach" in error_of(laptop, "status", "--cluster", head.cluster_file)
    assert time.monotonic() - began_s < 30


def test_a_key_that_is_refused_is_told(head: SshHead, laptop: Laptop) -> None:
    make_key(head.folder / "another key")
    head.write_cluster_file(ssh_private_key=str(head.folder / "another key"))
    assert "refuses" in (told := error_of(laptop, "status", "--cluster", head.cluster_file))
    assert "auth.ssh_private_key" in told
    head.write_cluster_file(ssh_private_key=str(head.folder / "no key"))
    assert "there is no" in error_of(laptop, "status", "--cluster", head.cluster_file)


def test_another_host_key_than_before_is_refused(head: SshHead, laptop: Laptop) -> None:
    assert laptop.run("status", "--cluster", head.cluster_file)[0] == 0
    head.stop()
    head.start("other host")
    told = error_of(laptop, "status")
    assert "shows another host key than before" in told
    known_hosts = next(laptop.state.glob("clusters/*/known_hosts"))
    assert str(known_hosts) in told
    known_hosts.unlink()
    assert laptop.run("status")[0] == 0


def test_a_head_without_the_project_is_told(head: SshHead, laptop: Laptop) -> None:
    (head.project / "node-env.sh").write_text('echo "no Ray token in ~/.ray/auth_token" >&2; return 1\n')
    assert "no Ray token in ~/.ray/auth_token" in error_of(laptop, "status", "--cluster", head.cluster_file)
    (head.project / "node-env.sh").unlink()
    assert "this project is not installed on" in error_of(laptop, "status", "--cluster", head.cluster_file)


def test_deploy_refuses_a_head_with_another_source(head: SshHead, laptop: Laptop) -> None:
    other = head.folder / "other"
    for package in ("orchestrator", "deployments", "tests"):
        shutil.copytree(ROOT / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "orchestrator/left_over.py").write_text("")
    head.install(other)
    assert laptop.run("deploy", "smol", "--cluster", head.cluster_file)[0] == 0, "what only the head has is no matter"
    with (other / "deployments/app.py").open("a") as file:
        file.write("# changed\n")
    assert "has another version of this project" in error_of(laptop, "deploy", "smol")
    code, _, err = laptop.run("delete", "smol")
    assert code == 0
    assert "warning: " in err
    (other / "orchestrator/remote/far_end.py").unlink()
    assert "has an older version of this project" in error_of(laptop, "delete", "smol")


# --- which cluster -------------------------------------------------------------------------------------


def ray_up(head: SshHead, laptop: Laptop, name: str = "rehearsal") -> None:
    """What `ray up` leaves on the machine it was run on: written by Ray's own node provider."""
    script = (
        "from ray.autoscaler._private.local.node_provider import LocalNodeProvider as Provider; import sys;"
        "Provider({'head_ip': '10.255.0.1', 'worker_ips': []}, sys.argv[1])"
        ".create_node({}, {'ray-node-type': 'head', 'ray-node-status': 'up-to-date'}, 1)"
    )
    subprocess.run([sys.executable, "-c", script, name], env=laptop.environ, check=True)
    configs = laptop.folder / "cluster-configs"
    configs.mkdir(exist_ok=True)
    text = head.cluster_file.read_text()
    (configs / f"{name}.yaml").write_text(text.replace("cluster_name: rehearsal", f"cluster_name: {name}"))


def ray_here(laptop: Laptop, dashboard_url: str) -> None:
    """A Ray that was started here before: by the record of it, since it began when this process did."""
    record = {"pid": os.getpid(), "started": psutil.Process().create_time(), "dashboard_url": dashboard_url}
    laptop.state.mkdir()
    (laptop.state / "ray.json").write_text(json.dumps(record))


def test_after_ray_up_deploy_needs_no_option(head: SshHead, laptop: Laptop) -> None:
    ray_here(laptop, f"http://127.0.0.1:{free_port()}")
    ray_up(head, laptop)
    not_up = head.cluster_file.read_text().replace("cluster_name: rehearsal", "cluster_name: not-up")
    (laptop.folder / "cluster-configs/not-up.yaml").write_text(not_up)
    code, out, err = laptop.run("deploy", "kimi-k2", "--emulate")
    assert (code, json.loads(out)["words"]) == (0, ["deploy", "--emulate", "--", "kimi-k2"])
    assert err.startswith("cluster: rehearsal on")
    ray_up(head, laptop, "second")
    assert laptop.run("status")[0] == 0, "the one used last is meant"
    assert laptop.run("down")[0] == 0
    told = error_of(laptop, "status")
    assert "several clusters" in told
    assert "--cluster cluster-configs/second.yaml" in told


def test_the_two_commands_are_the_whole_flow(head: SshHead, laptop: Laptop) -> None:
    """The real `ray up` over the same SSH, then `deploy` with nothing but a name; after `ray down` it is not meant."""
    ray_here(laptop, f"http://127.0.0.1:{free_port()}")
    configs = laptop.folder / "cluster-configs"
    configs.mkdir()
    document = yaml.safe_load(head.cluster_file.read_text())
    # Only Ray itself is left out, and the SSH key's copy on the head that goes with it.
    document.update(head_start_ray_commands=["true"], worker_start_ray_commands=["true"])
    (configs / "rehearsal.yaml").write_text(yaml.safe_dump(document))

    def ray(command: str) -> None:
        words = [str(Path(sys.executable).parent / "ray"), command, "--yes", "cluster-configs/rehearsal.yaml"]
        done = subprocess.run(words, env=laptop.environ, cwd=laptop.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    ray("up")
    code, out, err = laptop.run("deploy", "kimi-k2")
    assert (code, json.loads(out)["words"]) == (0, ["deploy", "--", "kimi-k2"])
    assert err.startswith("cluster: rehearsal on")
    assert laptop.run("down")[0] == 0
    ray("down")
    code, _, err = laptop.run("logs", "kimi-k2")
    assert code == 1
    assert "cluster: " not in err


def test_address_local_is_this_machine_from_then_on(head: SshHead, laptop: Laptop) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ray_here(laptop, url)
    assert laptop.run("status", "--cluster", head.cluster_file)[2].startswith("cluster: ")
    assert laptop.run("status")[2].startswith("cluster: ")
    for words in (["status", "--json", "--address", "local"], ["status", "--json"]):
        code, out, err = laptop.run(*words)
        assert (code, err) == (0, "")
        assert url in json.loads(out)["ray"]["error"]
    assert "name one cluster" in error_of(laptop, "status", "--address", "local", "--cluster", head.cluster_file)
    assert "down takes only `local`" in error_of(laptop, "down", "--address", "10.0.0.1")


def test_the_head_of_a_file_that_does_not_tell_is_asked_of_ray(
    head: SshHead, laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real `ray get-head-ip`: here of a cluster of SSH hosts, as nobody can rent a cloud's in a test."""
    ray_up(head, laptop)
    for name in ("RAY_TMPDIR", "HOME"):
        monkeypatch.setenv(name, laptop.environ[name])
    assert head_ip(read_cluster_file(head.cluster_file)) == "10.255.0.1"
    not_up = laptop.folder / "not-up.yaml"
    not_up.write_text(head.cluster_file.read_text().replace("cluster_name: rehearsal", "cluster_name: not-up"))
    with pytest.raises(
        ClusterUnavailable, match=r"^Ray finds no head of not-up \(.*not found!\); bring it up: ray up "
    ):
        head_ip(read_cluster_file(not_up))
