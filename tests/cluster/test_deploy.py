"""The user's two commands on two hosts: `ray up`, `deploy`; then a chat from outside, a host lost, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.operator import SMALL, WHOLE, Operator, operating

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


@pytest.fixture(
    scope="module", params=[SMALL, pytest.param(WHOLE, marks=pytest.mark.full)], ids=lambda size: f"{size.layout}"
)
def operator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(request.param, tmp_path_factory.mktemp("deploy")) as operator:
        yield operator


def test_deploy_from_outside_runs_every_rank_where_it_was_planned(operator: Operator) -> None:
    """Both hosts of the plan are in use, stage by stage, as the ranks themselves told."""
    said = operator.deploy()
    assert said["action"] == "deployed"
    assert said["layout"] == operator.size.layout
    assert said["rank_warnings"] == []
    (row,) = operator.json("status")["models"]
    assert row["rehearsal"]
    assert all(rank["weights_bytes_measured"] == rank["weights_bytes_planned"] for rank in row["ranks"])
    stages = {(rank["pipeline_stage"], rank["node"]) for rank in row["ranks"]}
    assert stages == {(0, operator.cluster.hosts[0].address), (1, operator.cluster.hosts[1].address)}


def test_the_openai_sdk_talks_to_it_from_outside(operator: Operator) -> None:
    client = operator.client()
    assert [model.id for model in client.models.list()] == [operator.size.model]
    messages: Any = [{"role": "user", "content": "Hello"}]
    asked: dict[str, Any] = {"model": operator.size.model, "messages": messages, "max_tokens": 5, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    streamed = client.chat.completions.create(**asked, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5


def test_a_lost_host_is_named_turned_away_with_503_and_the_model_is_back_with_it(operator: Operator) -> None:
    worker = operator.cluster.hosts[1]
    worker.kill()
    answers: list[tuple[int, str | None]] = []

    def turned_away() -> bool:
        answers.append(operator.ask())
        return answers[-1][0] == 503

    found_s = operator.until("requests are turned away", turned_away, 30)
    assert found_s < 10 + 2
    assert answers[-1][1], "503 says when to come back"
    (row,) = operator.json("status")["models"]
    assert f"on {worker.address}" in row["trouble"]
    worker.start()
    operator.until("the model answers again", lambda: operator.ask()[0] == 200, 600)


def test_down_leaves_ray_and_closes_the_way_in(operator: Operator) -> None:
    assert operator.run("down", "--cluster", str(operator.cluster.file)).returncode == 0
    assert operator.ask()[0] == 0
    assert operator.cluster.gpus() == 2 * operator.size.num_gpus
