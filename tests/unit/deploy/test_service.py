"""Service files: each wrong one is one line with the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.service import MAX_FILE_BYTES, default_name, make_service, read_engine_arguments, read_service
from orchestrator.errors import ConfigError

WHOLE = """
name: chat
model: smol-moe
replicas: 2
engine: {max_model_len: 16K, enable-expert-parallel: true}
env: {VLLM_LOGGING_LEVEL: DEBUG}
access: {auth: false}
"""


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "chat.yaml"
    path.write_text(WHOLE)
    service = read_service(path)
    assert (service.name, service.model, service.replicas, service.access.auth) == ("chat", "smol-moe", 2, False)
    assert service.engine == {"max_model_len": 16_384, "enable_expert_parallel": True}
    assert service.env == {"VLLM_LOGGING_LEVEL": "DEBUG"}


def test_a_model_is_all_a_file_needs(tmp_path: Path) -> None:
    path = tmp_path / "least.yaml"
    path.write_text("model: org/Some-Model_7B\n")
    service = read_service(path)
    assert (service.name, service.replicas, service.access.auth) == ("some-model_7b", 1, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: x\n", "model: field required"),
        (b"model: m\nreplica: 2\n", "replica: no such key here"),
        (b"model: 5\n", "model: input should be a valid string, not 5"),
        (b"model: m\nreplicas: two\n", "replicas: "),
        (b"model: m\nreplicas: 0\n", "replicas: .*greater than or equal to 1"),
        (b"model: m\nname: Chat Model\n", "name: use lower-case letters"),
        (
            b"model: m\nengine: {max_modle_len: 5}\n",
            "engine: vLLM has no engine argument --max-modle-len; did you mean",
        ),
        (
            b"model: m\nengine: {tensor_parallel_size: 0}\n",
            "engine: --tensor-parallel-size: 0 is not a whole number of at least 1",
        ),
        (b"model: m\nengine: {pipeline_parallel_size: 99999999999}\n", "it goes from 1 to 1024"),
        (b"model: m\nengine: {hf_overrides: {since: 2024-01-01}}\n", "engine.hf_overrides.*valid JSON"),
        (b"model: m\nenv: {A: 1}\n", "env.A: input should be a valid string, not 1"),
        (b"model: m\naccess: {auth: maybe}\n", "access.auth: "),
        (b"model: [\n", "not YAML"),
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
        (b"model: \x00", "not YAML"),
        (b"[" * 50_000, "not YAML"),
        (b"- model: m\n", "a service file is a mapping"),
        (b"", "a service file is a mapping"),
        (b"!!python/object/apply:os.system ['true']", "not YAML"),
        (b"#" * (MAX_FILE_BYTES + 1), "1000001 bytes is too much for a service file"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message) as failure:
        read_service(path)
    assert str(failure.value).startswith(str(path))
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 1000


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        read_service(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="is a folder; name a service file in it"):
        read_service(tmp_path)


@given(st.text(min_size=1, max_size=200))
def test_every_model_has_a_usable_default_name(model: str) -> None:
    assert make_service(model=model).name == default_name(model)


@pytest.mark.parametrize(
    ("model", "name"),
    [("Qwen/Qwen3-30B-A3B", "qwen3-30b-a3b"), ("./models/My Model/", "my-model"), ("/", "model"), ("…", "model")],
)
def test_the_default_name_is_the_last_part_in_lower_case(model: str, name: str) -> None:
    assert default_name(model) == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-modle-len 8", "no engine argument --max-modle-len; did you mean --max-model-len"),
        ("--no-max-model-len", "no engine argument --no-max-model-len"),
        ("--zzzzzz 1", "no engine argument --zzzzzz$"),
        ("-xx 1", "no engine argument --xx"),
        ("max_num_seqs 8", "'max_num_seqs' is not an option"),
        ("--model other", "--model is set by deploy itself: name the model"),
        ("--served-model-name x", "is set by deploy itself: use --name"),
        ("--distributed-executor-backend mp", "is set by deploy itself"),
    ],
)
def test_what_is_no_engine_argument_of_a_service_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_engine_arguments(words.split())


def test_an_argument_that_deploy_sets_itself_is_refused_in_a_file_too() -> None:
    with pytest.raises(ConfigError, match="--served-model-name is set by deploy itself: use --name"):
        make_service(model="m", engine={"served-model-name": "x"})
