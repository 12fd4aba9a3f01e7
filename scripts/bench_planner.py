"""How long planning takes: prints a line for each case. Run as `scripts/bench planner`.

Every case runs in a process of its own, so that "first" starts with empty caches, as a command does;
"again" is the best of the runs that follow. Reading the catalogue and the cluster is not counted.
"""

from __future__ import annotations

import multiprocessing
import time

from orchestrator.catalog.registry import resolve_model
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Constraints
from orchestrator.planner import Wishes, build_request, make_plan

RUNS = 3
# Four kinds of node, eight GPUs each.
KINDS = ("H100", "H200", "A100-80G", "L40S")


def four_kinds(num_gpus: int) -> str:
    return ",".join(f"{num_gpus // len(KINDS)}x{kind}" for kind in KINDS)


# name, model, cluster, replicas
CASES = (
    ("kimi-k2 on 16 GPUs", "kimi-k2", "16xH100", 1),
    ("kimi-k2 on 1,000 GPUs of four kinds", "kimi-k2", four_kinds(1_000), 1),
    ("kimi-k2 on 10,000 GPUs of four kinds", "kimi-k2", four_kinds(10_000), 1),
    ("mixtral-8x7b, 30 replicas on 1,000 GPUs", "mixtral-8x7b", four_kinds(1_000), 30),
    ("mixtral-8x7b, 300 replicas on 10,000 GPUs", "mixtral-8x7b", four_kinds(10_000), 300),
)


def timed_s(model: str, gpus: str, replicas: int) -> tuple[float, float]:
    """Seconds of the first run, and of the best of the next."""
    wishes = Wishes(constraints=Constraints(replicas=replicas))
    request = build_request(resolve_model(model), parse_gpus(gpus), wishes)
    seconds = []
    for _ in range(1 + RUNS):
        started = time.perf_counter()
        make_plan(request)
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:])


def main() -> None:
    print(f"{'case':45} {'first':>10} {'again':>10}")
    for name, *case in CASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            first, again = pool.apply(timed_s, tuple(case))
        print(f"{name:45} {first * 1000:7.0f} ms {again * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
