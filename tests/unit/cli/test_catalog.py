"""A user's own models and GPUs, by `--catalog` or from the state folder, in every command that names one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.plan import Plan
from orchestrator.units import GIB
from tests.unit.catalog.test_registry import MIXTRAL
from tests.unit.cli.runner import Runner

CATALOG = """
models:
  - name: our-moe
    hf_id: us/our-moe
    checkpoints:
      - hf_id: us/our-moe
        quantization: BF16
        config: our-moe.json
        sources: [{where: trained here, date: 2026-11-01}]
    default_checkpoint: us/our-moe
gpus:
  - name: H900
    product: NVIDIA H900 300GB
    vendor: nvidia
    ray_accelerator_type: H900
    memory_bytes: 290GiB
    driver_memory_bytes: 295GiB
    hbm_bandwidth_gb_per_s: 9000
    tflops: {bf16: 3000, fp8: 6000}
    nvlink_gb_per_s: 1800
    pcie_gb_per_s: 128
    compute_capability: "10.0"
    sources: [torch.cuda.get_device_properties on our own]
    date: 2026-11-24
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "our-moe.json").write_text(json.dumps(MIXTRAL))
    (tmp_path / "own" / "catalog.yaml").write_text(CATALOG)
    return tmp_path / "own" / "catalog.yaml"


@pytest.fixture(params=["named", "in the state folder"])
def words(request: pytest.FixtureRequest, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a command line needs so that the file counts: the option, or nothing."""
    if request.param == "named":
        return ["--catalog", str(catalog)]
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(catalog.parent))
    return []


def test_a_plan_knows_the_users_model_and_gpu(run: Runner, words: list[str]) -> None:
    code, out, _ = run("plan", "our-moe", "--gpus", "2xH900", "--json", *words)
    plan = Plan.from_json(out)
    assert code == 0
    assert {(node.gpu_type, node.gpu_memory_bytes, node.interconnect) for node in plan.cluster.nodes} == {
        ("H900", 290 * GIB, "nvlink")
    }
    assert "torch.cuda.get_device_properties on our own" in plan.sources["gpu H900"]
    code, out, _ = run("plan", "kimi-k2", "--gpus", "8xH900", "--gpu-type", "nvidia h900 300gb", "--json", *words)
    assert (code, len(Plan.from_json(out).ranks)) == (0, 8)


def test_a_cluster_file_may_name_the_users_gpu(run: Runner, words: list[str], tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("nodes: [{name: a, gpu_type: H900, num_gpus: 8}, {name: b, gpu_type: H100, num_gpus: 8}]")
    code, out, _ = run("plan", "kimi-k2", "--cluster", cluster, "--json", *words)
    assert code == 0
    assert {rank.node for rank in Plan.from_json(out).ranks} == {"a"}


def test_what_if_counts_the_users_gpu_among_those_that_would_do(run: Runner, words: list[str]) -> None:
    _, out, _ = run("plan", "deepseek-v3.2", "--what-if", *words)
    assert any("H900" in line and "4: TP 4" in line for line in out.splitlines())


def test_a_cluster_can_be_rehearsed_with_the_users_gpu(run: Runner, words: list[str]) -> None:
    command = ["cluster-config", "our-moe", "--gpus", "2xH900", "--provider", "local", *words]
    code, out, _ = run(*command, "--rehearsal")
    assert code == 0
    assert "accelerator_type:H900" in out


def test_deploy_and_models_know_the_users_model(run: Runner, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.deploy.cluster.find_cluster", lambda _address: None)
    _, out, _ = run("models", "--json", *words)
    assert {"name": "our-moe", "description": "us/our-moe (BF16)"} in json.loads(out)
    _, out, _ = run("deploy", "our-moe", "--dry-run", "--json", *words)
    (application,) = json.loads(out)["applications"]
    assert application["args"]["llm_config"]["model_loading_config"]["model_source"] == "us/our-moe"


def test_the_users_gpu_takes_the_place_of_one_of_the_same_name(run: Runner, catalog: Path) -> None:
    """Under every name that the other had."""
    document = yaml.safe_load(CATALOG)
    document["gpus"][0] |= {"name": "A100-80G", "product": "", "memory_bytes": 70 * GIB}
    catalog.write_text(yaml.safe_dump(document))
    for name in ("A100", "A100-SXM4-80GB", "a100-80g"):
        _, out, _ = run("plan", "mixtral-8x7b", "--gpus", f"8x{name}", "--json", "--catalog", catalog)
        assert Plan.from_json(out).cluster.nodes[0].gpu_memory_bytes == 70 * GIB


def test_one_command_does_not_leave_its_gpus_to_the_next(run: Runner, words: list[str], tmp_path: Path) -> None:
    assert run("plan", "our-moe", "--gpus", "1xH900", *words)[0] == 0
    code, _, err = run("plan", "mixtral-8x7b", "--gpus", "1xH900", "--catalog", empty(tmp_path))
    assert code == 1
    assert "GPU 'H900' is not known; did you mean H" in err


def empty(folder: Path) -> Path:
    (folder / "empty.yaml").write_text("{}")
    return folder / "empty.yaml"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"memory_bytes": -1}, "gpus.0.memory_bytes: input should be greater than 0, not -1"),
        ({"memory_bytes": "80 apples"}, "gpus.0.memory_bytes: '80 apples' is not a size"),
        ({"memory_bytes": True}, "gpus.0.memory_bytes"),
        ({"memory_bytes": 2.5}, "gpus.0.memory_bytes"),
        ({"memory_bytes": None}, "gpus.0.memory_bytes"),
        ({"colour": "green"}, "gpus.0.colour: no such key here"),
        ({"hbm_bandwidth_gb_per_s": 0}, "gpus.0.hbm_bandwidth_gb_per_s"),
        ({"hbm_bandwidth_gb_per_s": float("nan")}, "gpus.0.hbm_bandwidth_gb_per_s"),
        ({"pcie_gb_per_s": "fast"}, "gpus.0.pcie_gb_per_s"),
        ({"vendor": "acme"}, "gpus.0.vendor"),
        ({"name": "H 900"}, "gpus.0.name"),
        ({"name": "4090"}, "gpus.0.name"),
        ({"tflops": {"fp64": 1}}, "gpus.0.tflops.fp64"),
        ({"compute_capability": "ninety"}, "compute_capability is 'ninety'"),
        ({"compute_capability": 9.0}, "gpus.0.compute_capability"),
        ({"memory_basis": "driver"}, "note must say how memory_bytes was come by"),
        ({"sources": []}, "gpus.0.sources"),
        ({"date": "yesterday"}, "gpus.0.date"),
    ],
)
def test_a_wrong_fact_is_one_line_that_names_its_field(
    changes: dict[str, Any], expected: str, run: Runner, catalog: Path
) -> None:
    document = yaml.safe_load(CATALOG)
    document["gpus"][0] |= changes
    catalog.write_text(yaml.safe_dump(document))
    code, out, err = run("plan", "our-moe", "--gpus", "1xH900", "--catalog", catalog)
    assert (code, out) == (1, "")
    assert f"{catalog}: " in err
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("section", ["models", "gpus"])
def test_a_name_given_twice_is_refused(section: str, run: Runner, catalog: Path) -> None:
    document = yaml.safe_load(CATALOG)
    document[section] *= 2
    catalog.write_text(yaml.safe_dump(document))
    code, _, err = run("models", "--catalog", catalog)
    assert code == 1
    assert f"{section} has " in err
    assert err.rstrip().endswith("twice")


def test_a_file_that_is_no_catalogue_is_one_line(run: Runner, catalog: Path) -> None:
    for text in ("- a list", "gpus: {H900: 1}", "{", "\x00", "gpu: []"):
        catalog.write_text(text)
        code, _, err = run("models", "--catalog", catalog)
        assert code == 1
        assert err.count("\n") == 1
    for path in (catalog.parent, catalog.with_name("absent.yaml")):
        code, _, err = run("models", "--catalog", path)
        assert code == 1
        assert str(path) in err
    with catalog.open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    code, _, err = run("models", "--catalog", catalog)
    assert code == 1
    assert "the limit is" in err


def test_a_config_that_lies_nowhere_is_said_to(run: Runner, catalog: Path) -> None:
    (catalog.parent / "our-moe.json").unlink()
    code, _, err = run("plan", "our-moe", "--gpus", "1xH900", "--catalog", catalog)
    assert code == 1
    assert "config our-moe.json is neither beside the catalogue file nor among those that ship here" in err


def test_a_value_of_any_length_is_shown_short(run: Runner, catalog: Path) -> None:
    """Aliases make a value whose text would not fit into memory."""
    doubled = [f"k{i}: &k{i} [*k{i - 1}, *k{i - 1}]" for i in range(1, 40)]
    catalog.write_text("\n".join(["k0: &k0 [x, x]", *doubled, "gpus: *k39"]))
    code, _, err = run("models", "--catalog", catalog)
    assert code == 1
    assert len(err) < 1000
