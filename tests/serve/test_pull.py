"""`pull` against a hub on loopback: fetched once, gone on with, checked, and every refusal a line with the way out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.weights.checkpoint import check_checkpoint
from orchestrator.weights.manifest import MANIFEST, read_manifest
from tests.serve.fake_hub import Hub, Repository, fake_hub
from tests.unit.weights.test_checkpoint import safetensors, tensor

pytestmark = [pytest.mark.serve, pytest.mark.timeout(300)]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parents[2]
# Beyond the 10 MiB that the hub's library reads at a time.
LARGE_BYTES = 24 << 20
LARGE, SMALL = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def shard(name: str, size_bytes: int) -> bytes:
    """A safetensors file with bytes of its own: a piece in the wrong place is seen."""
    head = safetensors({name: tensor(0, size_bytes)}, 0)
    pieces = (hashlib.sha256(f"{name} {number}".encode()).digest() for number in range(size_bytes // 32))
    return head + b"".join(pieces)


def files() -> dict[str, bytes]:
    index = {"weight_map": {"a": LARGE, "b": SMALL}}
    return {
        "config.json": b'{"architectures": ["MixtralForCausalLM"]}',
        "tokenizer.json": b"{}" * 5000,
        "model.safetensors.index.json": json.dumps(index).encode(),
        LARGE: shard("a", LARGE_BYTES),
        SMALL: shard("b", 1 << 20),
        "modeling_own.py": b"raise SystemExit",
        "consolidated.safetensors": b"the same weights once more",
        "original/weights.pth": b"and again",
        "README.md": b"# words",
    }


NEEDED = {"config.json", "tokenizer.json", "model.safetensors.index.json", LARGE, SMALL}


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return files()


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[Hub]:
    with fake_hub({"org/model": Repository(COMMIT, dict(published))}) as running:
        yield running


class Machine:
    """A machine of its own: a home, a cache, and no word of the one the tests run on."""

    def __init__(self, home: Path, hub_url: str) -> None:
        self.home = home
        inherited = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        self.env = {
            **inherited, "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub_url, "COLUMNS": "200",
        }  # fmt: skip

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "orchestrator", "pull", *(str(word) for word in words)]

    def run(self, *words: str | Path, **env: str) -> tuple[int, str, str]:
        done = subprocess.run(
            self.command(*words), env={**self.env, **env}, cwd=ROOT, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def pull(self, *words: str | Path, **env: str) -> dict[str, Any]:
        code, out, err = self.run(*words, "--json", **env)
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        return document

    def refused(self, *words: str | Path, **env: str) -> str:
        """The one line that a command ends with."""
        code, out, err = self.run(*words, **env)
        line = err.strip().splitlines()[-1]
        assert (code, out, line[:7]) == (1, "", "error: ")
        assert "Traceback" not in err
        return line

    @property
    def snapshot(self) -> Path:
        return self.home / "hf" / "hub" / "models--org--model" / "snapshots" / COMMIT


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    return Machine(tmp_path, hub.url)


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_only_what_an_engine_needs_is_fetched_at_a_recorded_commit(machine: Machine, hub: Hub) -> None:
    got = machine.pull("org/model")
    assert (got["state"], got["revision"], got["folder"]) == ("fetched", COMMIT, str(machine.snapshot))
    assert got["source"] == f"hf://org/model@{COMMIT}"
    assert set(hub.sent()) == NEEDED
    assert there(machine.snapshot) == NEEDED | {MANIFEST}
    assert check_checkpoint(machine.snapshot) == sum(len(files()[name]) for name in (LARGE, SMALL))
    # The hub's own library, and so the engine, finds it by id and branch.
    assert (machine.snapshot.parents[1] / "refs" / "main").read_text() == COMMIT


def test_a_second_pull_moves_no_byte_and_without_a_network_it_says_what_is_here(machine: Machine, hub: Hub) -> None:
    machine.pull("org/model")
    hub.asked.clear()
    again = machine.pull("org/model")
    assert (again["state"], again["fetched_bytes"], hub.asked) == ("already there", 0, [])
    for env in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        offline = machine.pull("org/model", **env)
        assert offline["state"] == "already there"
        assert "could not be asked" in offline["notes"][0]
        # At a commit nobody need be asked.
        pinned = machine.pull("org/model", "--revision", COMMIT, **env)
        assert (pinned["state"], pinned["notes"]) == ("already there", [])


def test_a_connection_that_breaks_is_taken_up_where_it_broke(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].break_after[LARGE] = 15 << 20
    assert machine.pull("org/model")["state"] == "fetched"
    gets = [(first, sent) for method, name, first, sent in hub.asked if (method, name) == ("GET", LARGE)]
    size_bytes = len(files()[LARGE])
    assert [first for first, _ in gets] == [0, 10 << 20]
    assert gets[1][1] == size_bytes - (10 << 20)
    assert machine.run("org/model", "--check-only")[0] == 0


@pytest.mark.parametrize("to_folder", [False, True])
def test_a_killed_download_never_looks_whole_and_goes_on(machine: Machine, hub: Hub, to_folder: bool) -> None:
    folder = machine.home / "carried" if to_folder else machine.snapshot
    words = ["org/model", *(["--to", str(folder)] if to_folder else [])]
    hub.repositories["org/model"].slow_s = 0.004
    process = subprocess.Popen(machine.command(*words), env=machine.env, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size >= 10 << 20 for path in machine.home.rglob("*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_manifest(folder) is None
    assert LARGE not in there(folder)
    assert "not whole" in machine.refused(*words, "--check-only")
    hub.repositories["org/model"].slow_s = 0.0
    hub.asked.clear()
    assert machine.pull(*words)["state"] == "fetched"
    gets = [(name, first) for method, name, first, _ in hub.asked if method == "GET"]
    assert gets == [(LARGE, first) for _, first in gets]
    assert len(gets) == 1
    assert gets[0][1] >= 10 << 20
    assert machine.run(*words, "--check-only")[0] == 0
    assert not list(machine.home.rglob("*.part"))


def test_ctrl_c_ends_at_once_and_leaves_what_was_fetched(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].slow_s = 0.05
    process = subprocess.Popen(
        machine.command("org/model"), env=machine.env, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(machine.home.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert (
        err.strip().splitlines()[-1]
        == "error: interrupted; what was fetched stays, and the next pull goes on from there"
    )
    assert read_manifest(machine.snapshot) is None


def test_a_damaged_file_is_named_and_fetched_anew(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].corrupt[SMALL] = 1
    code, _, err = machine.run("org/model")
    assert code == 0
    assert f"{SMALL} is damaged (SHA-256" in err
    assert hub.sent()[SMALL] == 2 * len(files()[SMALL])
    assert machine.run("org/model", "--check-only")[0] == 0


def test_a_file_that_stays_damaged_is_refused_and_the_folder_is_not_whole(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].corrupt["tokenizer.json"] = 99
    line = machine.refused("org/model")
    assert "tokenizer.json is damaged" in line
    assert "for the second time" in line
    assert read_manifest(machine.snapshot) is None


def test_check_only_finds_a_changed_byte_and_the_next_pull_mends_that_file_alone(machine: Machine, hub: Hub) -> None:
    machine.pull("org/model")
    hub.asked.clear()
    path = machine.snapshot / SMALL
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"!")
    os.utime(path, ns=times)  # as a disk that lies would have it
    assert machine.pull("org/model")["state"] == "already there"
    assert f"{SMALL} holds other bytes than were fetched" in machine.refused("org/model", "--check-only")
    assert machine.pull("org/model")["state"] == "fetched"
    assert set(hub.sent()) == {SMALL}
    assert machine.pull("org/model", "--check-only")["state"] == "checked"


def test_a_gated_model_says_whether_a_token_or_its_access_is_missing(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].gated = True
    line = machine.refused("org/model")
    assert "gated and no token is set (HTTP 401)" in line
    assert "huggingface.co/org/model" in line
    assert "HF_TOKEN" in line
    assert "has no access (HTTP 403)" in machine.refused("org/model", HF_TOKEN="hf_stranger")
    token_file = machine.home / "token"
    token_file.write_text("hf_friend\n")
    assert machine.pull("org/model", HF_TOKEN_PATH=str(token_file))["state"] == "fetched"


def test_what_is_not_there_is_told_apart(machine: Machine) -> None:
    assert "'v9'" in (line := machine.refused("org/model", "--revision", "v9"))
    assert "has no revision" in line
    assert "it is private and needs a token" in machine.refused("org/absent")
    assert "this token does not see it" in machine.refused("org/absent", HF_TOKEN="hf_friend")
    line = machine.refused("org/model", HF_ENDPOINT="http://127.0.0.1:9")
    assert "no network" in line
    assert "--to" in line
    assert "HF_HUB_OFFLINE is set" in machine.refused("org/model", HF_HUB_OFFLINE="1")


def test_a_folder_is_carried_to_a_machine_without_a_network(machine: Machine, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "model"
    machine.pull("org/model", "--to", disk)
    assert there(disk) == NEEDED | {MANIFEST}
    moved = tmp_path / "elsewhere"
    shutil.copytree(disk, moved, copy_function=shutil.copyfile)  # times are lost, as on many a disk
    (tmp_path / "far").mkdir()
    far = Machine(tmp_path / "far", "http://127.0.0.1:9")
    got = far.pull("org/model", "--from", moved)
    assert (got["state"], got["revision"]) == ("fetched", COMMIT)
    assert got["folder"] == str(tmp_path / "far" / "hf" / "orchestrator" / "org--model")
    assert far.pull("org/model", "--from", moved)["state"] == "already there"
    assert far.pull("org/model")["state"] == "already there"
    # A copy that was damaged on the way does not become whole.
    (moved / SMALL).write_bytes(bytes((moved / SMALL).stat().st_size))
    assert f"{SMALL} is damaged" in far.refused("other/model", "--from", moved)


def test_a_store_without_digests_is_fetched_anew_when_its_files_change(machine: Machine, tmp_path: Path) -> None:
    """New weights of the same shape have the same sizes: only the store's own word tells them apart."""
    store = tmp_path / "store"
    store.mkdir()
    for name in NEEDED:
        (store / name).write_bytes(files()[name])
    first = machine.pull("own", "--from", f"file://{store}")
    assert machine.pull("own", "--from", store)["state"] == "already there"
    (store / SMALL).write_bytes(shard("c", 1 << 20))
    second = machine.pull("own", "--from", store)
    assert second["state"] == "fetched"
    assert second["revision"] != first["revision"]
    assert (Path(second["folder"]) / SMALL).read_bytes() == shard("c", 1 << 20)
    assert not [path for path in Path(second["folder"]).iterdir() if path.suffix == ".part"]


def test_of_two_pulls_at_once_one_fetches_and_the_other_waits(machine: Machine, hub: Hub) -> None:
    hub.repositories["org/model"].slow_s = 0.008
    both = [
        subprocess.Popen(
            machine.command("org/model", "--json"), env=machine.env, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=100) for process in both]
    assert sorted(json.loads(out)["state"] for out, _ in told) == ["already there", "fetched"]
    assert sum("waiting for process" in err for _, err in told) == 1
    assert hub.sent()[LARGE] == len(files()[LARGE])


def test_the_publishers_code_comes_only_where_the_catalogue_says_it_is_needed(tmp_path: Path) -> None:
    kimi = {**files(), "config.json": b'{"auto_map": {"AutoConfig": "modeling_own.Own"}}'}
    repositories = {
        "moonshotai/Kimi-K2-Instruct": Repository(COMMIT, kimi),
        "org/own-code": Repository(COMMIT, kimi),
    }
    with fake_hub(repositories) as hub:
        machine = Machine(tmp_path, hub.url)
        known, unknown = machine.pull("kimi-k2"), machine.pull("org/own-code")
    assert (Path(known["folder"]) / "modeling_own.py").is_file()
    assert any("trust_remote_code" in note and COMMIT[:12] in note for note in known["notes"])
    assert any("the catalogue says" in note for note in known["notes"])  # 25 MiB are no Kimi K2
    assert not (Path(unknown["folder"]) / "modeling_own.py").exists()
    assert unknown["notes"] == ["config.json names code of the publisher's own; it was not fetched and is not run"]
