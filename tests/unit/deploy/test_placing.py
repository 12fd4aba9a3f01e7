"""A plan becomes bundles in rank order, each pinned to its node; what deployed plans hold is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.deploy.placing import Planned, check_seats, gpus_held, rank_order, rank_rows, selectors, waits_for
from orchestrator.deploy.ray_api import RayNode
from orchestrator.deploy.render import Placement, Rendering, render_application
from orchestrator.deploy.serve_config import comparable
from orchestrator.deploy.service import make_service
from orchestrator.errors import ConfigError, SeatTaken, StalePlan
from orchestrator.plan import Parallelism, Plan
from tests.unit.plan.helpers import plan, rank


def node(name: str, node_id: str, **labels: str) -> RayNode:
    return RayNode(node_id, name, {"GPU": 4.0}, None, None, labels)


def two_replicas() -> Plan:
    ranks = [rank(number, replica=replica, node="ab"[replica]) for replica in (1, 0) for number in (3, 2, 1, 0)]
    return plan(parallelism=Parallelism(tensor=2, pipeline=2, expert=True, replicas=2), ranks=tuple(ranks))


def application(document: Plan, contents: Plan | None = None) -> dict[str, Any]:
    nodes = [node("a", "id-a"), node("b", "id-b")]
    placement = Placement(
        Planned(document, contents or document, {"tensor_parallel_size": 2}, {"A": "plan"}), selectors(document, nodes)
    )
    rendering = Rendering("/m", (), True, "http://h:1", {"max_model_len": 1}, {}, placement)
    return render_application(make_service(model="m", env={"B": "user"}), rendering)


def test_every_rank_is_pinned_to_its_node_in_rank_order_a_list_for_each_replica() -> None:
    chosen = selectors(two_replicas(), [node("b", "id-b"), node("a", "id-a")])
    assert chosen == [[{"ray.io/node-id": "id-a"}] * 4, [{"ray.io/node-id": "id-b"}] * 4]


def test_a_node_is_known_by_its_own_label_which_it_keeps_when_it_comes_back() -> None:
    labelled = node("10.0.0.1", "id-1", **{"orchestrator/host": "a"})
    assert selectors(plan(), [labelled]) == [[{"orchestrator/host": "a"}] * 4]


def test_a_plan_with_ranks_on_a_node_that_is_gone_is_stale() -> None:
    with pytest.raises(StalePlan, match="ranks on a, which is no live node"):
        selectors(plan(), [node("b", "id-b")])


def test_a_rank_whose_node_is_gone_is_what_an_application_waits_for() -> None:
    args = application(two_replicas())["args"]
    there = [node("a", "id-a"), node("b", "id-b")]
    assert waits_for(args, there) == ""
    assert waits_for(args, there[:1]) == "rank 0 waits for b, which is no live node"
    assert waits_for({}, []) == ""


def test_rank_i_takes_bundle_i() -> None:
    assert rank_order(3) == {"VLLM_RAY_BUNDLE_INDICES": "0,1,2"}


def test_an_application_carries_its_plan_without_what_was_refused() -> None:
    args = application(plan())["args"]
    assert args["plan"]["rejected"] == []
    assert args["contents"] is None
    assert json.loads(json.dumps(args))["selectors"] == [[{"ray.io/node-id": "id-a"}] * 4]
    config = args["llm_config"]
    assert config["placement_group_config"]["bundles"] == [{"GPU": 1, "CPU": 1}] * 4
    assert config["engine_kwargs"] == {
        "max_model_len": 1,  # a default of the model's own: a pinned revision would be another
        "tensor_parallel_size": 2,
        "worker_extension_cls": "deployments.worker_extension.WorkerExtension",
    }
    env = config["runtime_env"]["env_vars"]
    assert (env["A"], env["B"], env["VLLM_RAY_BUNDLE_INDICES"]) == ("plan", "user", "0,1,2,3")


def test_what_a_plan_says_wins_over_a_models_defaults_and_the_workers_extension_is_ours() -> None:
    planned = Planned(plan(), plan(), {"max_model_len": 8}, {})
    placement = Placement(planned, selectors(plan(), [node("a", "id-a")]))
    rendering = Rendering("/m", (), True, "http://h:1", {"max_model_len": 1, "revision": "c"}, {}, placement)
    engine = render_application(make_service(model="m"), rendering)["args"]["llm_config"]["engine_kwargs"]
    assert (engine["max_model_len"], engine["revision"]) == (8, "c")
    with pytest.raises(ConfigError, match="worker_extension_cls is taken where ranks are planned"):
        render_application(make_service(model="m", engine={"worker_extension_cls": "a.B"}), rendering)


def test_another_placement_of_the_same_layout_is_a_change() -> None:
    moved = plan(ranks=tuple(rank(number, gpu_index=3 - number) for number in range(4)))
    assert comparable(application(plan())) == comparable(application(plan(warnings=())))
    assert comparable(application(plan())) != comparable(application(moved))


def test_gpus_of_other_deployments_are_held_and_ones_own_are_apart() -> None:
    apps = {name: {"deployed_app_config": application(plan())} for name in ("mine", "theirs")}
    details = {"applications": {**apps, "unplanned": {"deployed_app_config": {"args": {}}}, "bare": {}}}
    others, own = gpus_held(details, "mine")
    assert others == own == {"a": {0, 1, 2, 3}}
    assert gpus_held({"applications": {}}, "mine") == ({}, {})


def test_a_seat_that_another_deployment_took_meanwhile_is_named() -> None:
    mine = application(plan())
    theirs = {"theirs": {"deployed_app_config": application(plan(ranks=(rank(2),)))}}
    check_seats(mine, {"applications": {mine["name"]: {"deployed_app_config": mine}}})
    with pytest.raises(SeatTaken, match=r"^another deployment has taken GPU 2 of a, planned for rank 2 of m; deploy"):
        check_seats(mine, {"applications": theirs})


def test_rank_rows_show_what_stands_in_and_what_was_measured() -> None:
    contents = plan(ranks=tuple(rank(number, layers=(0, 1), experts=None) for number in range(4)))
    args = application(plan(), contents)["args"]
    rows = rank_rows(args, [{"replica": 0, "rank": 2, "node": "a", "gpu_index": 3, "weights_bytes": 49}])
    assert [row["gpu_index"] for row in rows] == [0, 1, 3, 3]
    assert [row["layers"] for row in rows] == [[0, 1]] * 4
    assert [row["weights_bytes_measured"] for row in rows] == [None, None, 49, None]
    assert rank_rows({}, []) == []
