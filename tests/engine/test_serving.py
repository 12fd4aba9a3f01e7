"""The main job, on the real engine: deploy smol-moe, talk to it as the OpenAI SDK does, change it, take it away."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, NotFoundError

from tests.engine.harness import (
    ANSWER_TOKENS,
    QUESTIONS,
    Cli,
    GreedyAnswer,
    answers_of_the_bare_server,
    greedy,
    greedy_with_likeliest,
    predicted_kv_tokens,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MODEL = "smol-moe"
ALIAS = "HuggingFaceTB/SmolLM2-135M-Instruct"
PARIS = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def bare_float32_answers(cli: Cli) -> list[GreedyAnswer]:
    """What vLLM's own server answers with the engine in float32, where there are no ties.

    It has gone before ours starts, since both want the same two cores.
    """
    return answers_of_the_bare_server(cli, MODEL, "--dtype", "float32")


@pytest.fixture(scope="module")
def served(cli: Cli, bare_float32_answers: list[GreedyAnswer]) -> dict[str, Any]:
    """smol-moe deployed by the command line; what the command said, and how long it really took."""
    begun = time.monotonic()
    said = dict(cli.deploy(MODEL))
    return {**said, "wall_seconds": time.monotonic() - begun}


def test_a_deployment_returns_with_its_phases_adding_up_to_the_wall_time(served: dict[str, Any]) -> None:
    """`deploy` shows where the time went, from the engine's own events."""
    assert served["action"] == "deployed"
    phases = served["phases_seconds"]
    assert set(phases) == {"cluster", "placement", "engine process", "weights", "warm-up", "KV cache", "first token"}
    assert all(seconds > 0 for seconds in phases.values()), phases
    assert served["total_seconds"] == pytest.approx(sum(phases.values()))
    # What is not in a phase: the interpreter's start, and checking the demo model's files.
    assert 0 <= served["wall_seconds"] - served["total_seconds"] < 8
    assert served["kv_cache_tokens"] > 0


def test_the_engine_has_exactly_the_kv_tokens_that_the_memory_model_predicts(cli: Cli, served: dict[str, Any]) -> None:
    """For the same pool: the engine's own "GPU KV cache size", to the token, of GQA and of MLA."""
    assert served["kv_cache_tokens"] == predicted_kv_tokens(cli, MODEL)


def test_deploying_the_same_again_is_unchanged_and_quick(cli: Cli, served: dict[str, Any]) -> None:
    begun = time.monotonic()
    assert cli.deploy(MODEL)["action"] == "unchanged"
    assert time.monotonic() - begun < 20


def test_the_model_is_listed_and_retrieved_by_name_and_alias(cli: Cli, served: dict[str, Any]) -> None:
    client = cli.client()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve(ALIAS).object == "model"


def test_the_capital_of_france_is_paris_under_both_names(cli: Cli, served: dict[str, Any]) -> None:
    for name in (MODEL, ALIAS):
        answer = cli.client().chat.completions.create(model=name, messages=PARIS, max_tokens=16, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")


def test_a_stream_holds_what_the_whole_answer_holds(cli: Cli, served: dict[str, Any]) -> None:
    client = cli.client()
    asked: dict[str, Any] = {"model": MODEL, "messages": PARIS, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 4, "one chunk a token, not one for all"


def test_usage_counts_the_tokens(cli: Cli, served: dict[str, Any]) -> None:
    answer = cli.client().completions.create(model=MODEL, prompt="One two three", max_tokens=5, temperature=0)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert answer.usage.total_tokens == 8
    assert answer.choices[0].finish_reason == "length"


def test_completions_take_n_stop_logprobs_and_seeds(cli: Cli, served: dict[str, Any]) -> None:
    client = cli.client()
    several = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4, n=3, temperature=1, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    again = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4, n=3, temperature=1, seed=1)
    assert [c.text for c in again.choices] == [c.text for c in several.choices]
    stopped = client.completions.create(model=MODEL, prompt="1, 2, 3, 4, 5,", max_tokens=30, stop=[" 9"], temperature=0)
    assert " 9" not in stopped.choices[0].text
    assert stopped.choices[0].finish_reason == "stop"
    told = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=2, logprobs=3, temperature=0)
    assert told.choices[0].logprobs is not None
    assert all(logprob <= 0 for logprob in told.choices[0].logprobs.token_logprobs or [1])
    chosen = client.chat.completions.create(
        model=MODEL, messages=PARIS, max_tokens=2, logprobs=True, top_logprobs=2, temperature=0
    )
    assert chosen.choices[0].logprobs is not None
    assert len((chosen.choices[0].logprobs.content or [])[0].top_logprobs) == 2


def _error(raised: APIStatusError) -> dict[str, Any]:
    body = raised.response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    return error


def test_a_wrong_model_is_404_a_wrong_key_401_a_bad_body_400(cli: Cli, served: dict[str, Any]) -> None:
    """Each in OpenAI's shape, so that the SDK raises its own class for it."""
    with pytest.raises(NotFoundError) as not_found:
        cli.client().chat.completions.create(model="gpt-5", messages=PARIS)
    assert _error(not_found.value)["code"] == "model_not_found"
    with pytest.raises(AuthenticationError) as wrong_key:
        cli.client(key="moe-wrong").chat.completions.create(model=MODEL, messages=PARIS)
    assert _error(wrong_key.value)["code"] == "invalid_api_key"
    for bad in ({"messages": "text"}, {"messages": PARIS, "max_tokens": -1}, {"messages": PARIS, "temperature": "hot"}):
        with pytest.raises(BadRequestError) as refused:
            cli.client().chat.completions.create(model=MODEL, **bad)
        assert _error(refused.value)["message"]
    long = "word " * 60_000  # over one buffer of the front, and over the model's length
    with pytest.raises(BadRequestError):
        cli.client().completions.create(model=MODEL, prompt=long)


def test_nothing_but_health_answers_without_a_key(cli: Cli, served: dict[str, Any]) -> None:
    root = cli.base_url().removesuffix("/v1")
    with urllib.request.urlopen(f"{root}/health", timeout=10) as response:
        assert response.status == 200
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/v1/models/smol-moe", "/version"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(root + path, timeout=10)
        assert refused.value.code == 401, path


def test_the_key_is_in_a_private_file_and_in_no_log_and_no_process_list(cli: Cli, served: dict[str, Any]) -> None:
    assert (cli.home / "api-key").stat().st_mode & 0o077 == 0
    logs = [
        path for path in [*cli.home.rglob("*.log"), *Path("/tmp/ray/session_latest/logs").rglob("*")] if path.is_file()
    ]
    assert logs
    assert not [path for path in logs if cli.key() in path.read_text(errors="replace")]
    assert not [process for process in cli.processes() if cli.key() in " ".join(process.cmdline())]


def test_status_logs_and_chat_tell_of_it(cli: Cli, served: dict[str, Any]) -> None:
    (row,) = cli.json("status")["models"]
    assert (row["name"], row["status"], row["replicas_serving"]) == (MODEL, "RUNNING", 1)
    written = "\n".join(line for file in cli.json("logs", MODEL) for line in file["lines"])
    assert "vLLM" in written or "vllm" in written
    assert "Paris" in cli.json("chat", MODEL, "What is the capital of France?")["answer"]


def test_two_models_share_one_base_url_and_neither_deploy_removes_the_other(cli: Cli, served: dict[str, Any]) -> None:
    """The second is open (`--no-auth`): the keyless calls that need no key work for it, and for it alone."""
    said = cli.deploy("kimi-k2-mini", "--no-auth")
    assert said["action"] == "deployed"
    assert said["kv_cache_tokens"] == predicted_kv_tokens(cli, "kimi-k2-mini")
    assert {model.id for model in cli.client().models.list()} == {MODEL, "kimi-k2-mini"}
    assert {row["name"] for row in cli.json("status")["models"]} == {MODEL, "kimi-k2-mini"}
    open_client = cli.client(key="not-needed")
    assert [model.id for model in open_client.models.list()] == ["kimi-k2-mini"]
    answer = open_client.chat.completions.create(model="kimi-k2-mini", messages=PARIS, max_tokens=4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    request = urllib.request.Request(
        f"{cli.base_url()}/completions",
        data=b'{"model": "kimi-k2-mini", "prompt": "Hello", "max_tokens": 2}',
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200
    with pytest.raises(AuthenticationError):
        open_client.chat.completions.create(model=MODEL, messages=PARIS)
    assert cli.json("delete", "kimi-k2-mini") == {"name": "kimi-k2-mini", "action": "deleted"}
    with pytest.raises(NotFoundError):
        cli.client().models.retrieve("kimi-k2-mini")
    assert len(greedy(cli.client(), MODEL, count=1)) == 1


def test_a_changed_argument_is_rolled_out_and_float32_equals_the_bare_server_and_transformers(
    cli: Cli, served: dict[str, Any], bare_float32_answers: list[GreedyAnswer]
) -> None:
    """In float32 all 20 answers are the very tokens of vLLM's own server, and of transformers."""
    said = cli.deploy(MODEL, "--dtype", "float32")
    assert said["action"] == "updated"
    assert {"path": "engine.dtype", "before": None, "after": "float32"} in said["changes"]
    folder = next(cli.home.joinpath("cache").glob("smol-moe-4x2-*-seed0"))
    ours = greedy_with_likeliest(cli.client(), MODEL)
    assert [answer.tokens for answer in ours] == [answer.tokens for answer in bare_float32_answers]
    assert greedy(cli.client(), MODEL) == _transformers_answers(folder)


def _transformers_answers(folder: Path) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for question in QUESTIONS:
        chat = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens = model.generate(**prompt, max_new_tokens=ANSWER_TOKENS, do_sample=False)
        answers.append(tokenizer.decode(tokens[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def test_delete_leaves_no_process_of_the_engine_behind(cli: Cli, served: dict[str, Any]) -> None:
    assert cli.engine_processes()
    cli.json("delete", MODEL)
    deadline = time.monotonic() + 15
    while (left := cli.engine_processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left
    with pytest.raises(NotFoundError):
        cli.client().chat.completions.create(model=MODEL, messages=PARIS)
