"""Whether a plan's books balance: every GPU once, every byte once, every shard once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from orchestrator.errors import PlanInconsistent
from orchestrator.plan.document import Plan, PlannedRank


def verify(plan: Plan) -> None:
    """Raise `PlanInconsistent` with the first thing that does not add up, and how many there are."""
    found = tuple(problems(plan))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise PlanInconsistent(f"this plan's books do not balance: {found[0]}{more}")


def problems(plan: Plan) -> Iterator[str]:
    """Every sentence that is wrong with the plan; none for a sound one."""
    yield from _memory(plan)
    yield from _gpus(plan)
    yield from _grid(plan)
    yield from _layers(plan)
    yield from _experts(plan)


def _memory(plan: Plan) -> Iterator[str]:
    for rank in plan.ranks:
        memory = rank.memory
        if memory.accounted_bytes != memory.capacity_bytes:
            yield (f"{_who(rank)} accounts for {memory.accounted_bytes} bytes of a GPU with {memory.capacity_bytes}")


def _gpus(plan: Plan) -> Iterator[str]:
    nodes = {node.name: node for node in plan.cluster.nodes}
    for (node, gpu), times in Counter((rank.node, rank.gpu_index) for rank in plan.ranks).items():
        if times > 1:
            yield f"GPU {gpu} of node {node} carries {times} ranks"
    for rank in plan.ranks:
        machine = nodes.get(rank.node)
        if machine is None:
            yield f"{_who(rank)} sits on node {rank.node}, which is not in the cluster"
        elif rank.gpu_index >= machine.num_gpus:
            yield f"{_who(rank)} sits on GPU {rank.gpu_index} of {rank.node}, which has {machine.num_gpus}"
        elif rank.memory.capacity_bytes != machine.gpu_memory_bytes:
            yield (
                f"{_who(rank)} counts on {rank.memory.capacity_bytes} bytes, "
                f"but a GPU of node {rank.node} has {machine.gpu_memory_bytes}"
            )


def _grid(plan: Plan) -> Iterator[str]:
    """Each (replica, data rank, stage, tensor rank) exactly once, numbered as the engine numbers them."""
    degrees = plan.parallelism
    expected = {
        (replica, (data * degrees.pipeline + stage) * degrees.tensor + tensor, data, stage, tensor)
        for replica in range(degrees.replicas)
        for data in range(degrees.data)
        for stage in range(degrees.pipeline)
        for tensor in range(degrees.tensor)
    }
    placed = Counter(
        (rank.replica, rank.rank, rank.data_rank, rank.pipeline_stage, rank.tensor_rank) for rank in plan.ranks
    )
    for place in sorted(expected - set(placed)):
        yield f"replica {place[0]} lacks rank {place[1]} (data, stage, tensor {place[2:]})"
    for place in sorted(set(placed) - expected):
        yield f"replica {place[0]} has a rank {place[1]} that {degrees.label()} has no place for"
    for place, times in placed.items():
        if times > 1:
            yield f"replica {place[0]} has rank {place[1]} {times} times"


def _layers(plan: Plan) -> Iterator[str]:
    """Stages follow one another without gap or overlap, and end at the same layer everywhere."""
    spans: dict[tuple[int, int], dict[int, set[tuple[int, int]]]] = defaultdict(lambda: defaultdict(set))
    for rank in plan.ranks:
        spans[rank.replica, rank.data_rank][rank.pipeline_stage].add(rank.layers)
    ends = set()
    for (replica, data_rank), stages in spans.items():
        where = f"replica {replica}, data rank {data_rank}"
        end = 0
        for stage in sorted(stages):
            if len(stages[stage]) > 1:
                yield f"{where}: ranks of stage {stage} hold different layers"
            first, last = min(stages[stage])
            if first != end or last <= first:
                yield f"{where}: stage {stage} holds layers [{first}, {last}) after layer {end}"
            end = last
        ends.add(end)
    if len(ends) > 1:
        yield f"replicas end at different layers: {sorted(ends)}"


def _experts(plan: Plan) -> Iterator[str]:
    """Within a stage, every expert once over all data and tensor ranks, plus the redundant copies."""
    held: dict[tuple[int, int], list[PlannedRank]] = defaultdict(list)
    for rank in plan.ranks:
        held[rank.replica, rank.pipeline_stage].append(rank)
    for (replica, stage), ranks in held.items():
        where = f"replica {replica}, stage {stage}"
        lists = [rank.experts for rank in ranks if rank.experts is not None]
        if not plan.parallelism.expert and lists:
            yield f"{where}: experts are placed whole, but expert parallel is off"
        if lists:
            yield from _expert_copies(where, lists, len(ranks), plan.parallelism.redundant_experts)


def _expert_copies(where: str, lists: list[tuple[int, ...]], num_ranks: int, redundant: int) -> Iterator[str]:
    if len(lists) != num_ranks:
        yield f"{where}: {num_ranks - len(lists)} ranks have no experts while others have"
    copies = Counter(expert for experts in lists for expert in experts)
    num_experts = max(copies, default=-1) + 1
    missing = [expert for expert in range(num_experts) if expert not in copies]
    if missing:
        yield f"{where}: expert {missing[0]} is held by no rank"
    extra = copies.total() - len(copies)
    if extra != redundant:
        yield f"{where}: {extra} expert copies beyond one each, {redundant} redundant ones declared"


def _who(rank: PlannedRank) -> str:
    return f"rank {rank.rank} of replica {rank.replica}"
