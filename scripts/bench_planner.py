"""How long planning takes: prints a line for each case. Run as `scripts/bench planner`.

Each figure is the best of a few runs in this process, loading of the catalogue included in none of them.
"""

from __future__ import annotations

import time

from orchestrator.catalog.registry import resolve_model
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Constraints, Objective
from orchestrator.planner import PlanRequest, make_plan
from orchestrator.planner.arguments import Wishes, build_request

RUNS = 3
# Four kinds of node, eight GPUs each.
KINDS = ("H100", "H200", "A100-80G", "L40S")


def four_kinds(num_gpus: int) -> str:
    return ",".join(f"{num_gpus // len(KINDS)}x{kind}" for kind in KINDS)


def request(model: str, gpus: str, objective: Objective = "throughput", replicas: int = 1) -> PlanRequest:
    wishes = Wishes(objective=objective, constraints=Constraints(replicas=replicas))
    return build_request(resolve_model(model), parse_gpus(gpus), wishes)


def timed_s(asked: PlanRequest) -> tuple[float, float]:
    """Seconds of the first run, which fills the caches, and of the best of the next."""
    seconds = []
    for _ in range(1 + RUNS):
        started = time.perf_counter()
        make_plan(asked)
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:])


def main() -> None:
    cases = (
        ("kimi-k2 on 16 GPUs", request("kimi-k2", "16xH100")),
        ("kimi-k2 on 1,000 GPUs of four kinds", request("kimi-k2", four_kinds(1_000))),
        ("kimi-k2 on 10,000 GPUs of four kinds", request("kimi-k2", four_kinds(10_000))),
        ("30 replicas on 1,000 GPUs of four kinds", request("mixtral-8x7b", four_kinds(1_000), replicas=30)),
        (
            "300 replicas on 10,000 GPUs of four kinds",
            request("mixtral-8x7b", four_kinds(10_000), replicas=300),
        ),
    )
    print(f"{'case':45} {'first':>10} {'again':>10}")
    for name, asked in cases:
        first, again = timed_s(asked)
        print(f"{name:45} {first * 1000:7.0f} ms {again * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
