"""Ranks to GPUs: which node, which GPU.

A tensor group is cut out of one island where one is large enough, else out of one node; only a group that
no node can hold straddles several. A replica takes the fullest node that holds it whole, else as few
nodes as it can; replicas are dealt out over failure domains in turn. Nodes count in declared order, so
the same cluster gives the same placement.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cluster.snapshot import NodeSnapshot


@dataclass(frozen=True)
class Seat:
    """One GPU of one node."""

    node: NodeSnapshot
    gpu_index: int


Group = tuple[Seat, ...]
Replica = tuple[Group, ...]


@dataclass
class _Shelf:
    """The tensor groups still free on one node."""

    order: int
    node: NodeSnapshot
    groups: deque[Group]


def place(
    nodes: tuple[NodeSnapshot, ...],
    group_size: int,
    groups_per_replica: int,
    replicas: int,
    whole_islands_only: bool,
    in_order: bool = False,
) -> tuple[Replica, ...] | None:
    """Tensor groups for every replica, in rank order; None where the nodes hold too few of them.

    `in_order` fills node after node as given, where the order of the nodes means something.
    """
    shelves = [
        _Shelf(order, node, deque(_cut(node, group_size, whole_islands_only))) for order, node in enumerate(nodes)
    ]
    if sum(len(shelf.groups) for shelf in shelves) < groups_per_replica * replicas:
        return None
    if in_order:
        queue = deque(shelf for shelf in shelves if shelf.groups)
        return tuple(_gather(queue, groups_per_replica) for _ in range(replicas))
    placed = list(_inside_nodes(shelves, groups_per_replica, replicas))
    placed += _over_nodes(shelves, groups_per_replica, replicas - len(placed))
    return tuple(placed)


def _cut(node: NodeSnapshot, size: int, whole_islands_only: bool) -> Iterator[Group]:
    """Groups inside islands first; then, if allowed, groups made of what the islands leave over."""
    left_over: list[int] = []
    for island in node.free_islands:
        whole = len(island) // size * size
        yield from _chunks(node, island[:whole], size)
        left_over += island[whole:]
    if not whole_islands_only:
        yield from _chunks(node, tuple(left_over[: len(left_over) // size * size]), size)


def _chunks(node: NodeSnapshot, gpus: tuple[int, ...], size: int) -> Iterator[Group]:
    for start in range(0, len(gpus), size):
        yield tuple(Seat(node, gpu) for gpu in gpus[start : start + size])


def _inside_nodes(shelves: list[_Shelf], needed: int, replicas: int) -> Iterator[Replica]:
    """Replicas that one node holds whole: the fullest such node first, failure domains in turn."""
    by_domain: dict[str, deque[_Shelf]] = defaultdict(deque)
    for shelf in sorted(shelves, key=lambda shelf: (len(shelf.groups), shelf.order)):
        if len(shelf.groups) >= needed:
            by_domain[shelf.node.failure_domain].append(shelf)
    turns = deque(sorted(by_domain.values(), key=lambda queue: (len(queue[0].groups), queue[0].order)))
    for _ in range(replicas):
        if not turns:
            return
        queue = turns.popleft()
        yield _take(queue[0], needed)
        if len(queue[0].groups) < needed:
            queue.popleft()
        if queue:
            turns.append(queue)


def _over_nodes(shelves: list[_Shelf], needed: int, replicas: int) -> Iterator[Replica]:
    """Replicas that span nodes: the nodes with most room first, within one failure domain if one suffices."""
    if replicas <= 0:
        return
    by_domain: dict[str, deque[_Shelf]] = defaultdict(deque)
    for shelf in sorted(shelves, key=lambda shelf: (-len(shelf.groups), shelf.order)):
        if shelf.groups:
            by_domain[shelf.node.failure_domain].append(shelf)
    room = {domain: sum(len(shelf.groups) for shelf in queue) for domain, queue in by_domain.items()}
    turns = deque(sorted(by_domain, key=lambda domain: by_domain[domain][0].order))
    while replicas and turns:
        domain = turns.popleft()
        if room[domain] < needed:
            continue
        yield _gather(by_domain[domain], needed)
        room[domain] -= needed
        replicas -= 1
        turns.append(domain)
    rest = deque(shelf for shelf in shelves if shelf.groups)
    for _ in range(replicas):
        yield _gather(rest, needed)


def _gather(queue: deque[_Shelf], needed: int) -> Replica:
    taken: list[Group] = []
    while len(taken) < needed:
        shelf = queue[0]
        taken += _take(shelf, min(needed - len(taken), len(shelf.groups)))
        if not shelf.groups:
            queue.popleft()
    return tuple(taken)


def _take(shelf: _Shelf, count: int) -> Replica:
    return tuple(shelf.groups.popleft() for _ in range(count))


def place_straddling(
    nodes: tuple[NodeSnapshot, ...], group_size: int, groups_per_replica: int, replicas: int
) -> tuple[Replica, ...] | None:
    """As `place`, for groups larger than any node: equal parts on as few nodes as possible."""
    for parts in range(2, group_size + 1):
        if group_size % parts:
            continue
        pieces = place(nodes, group_size // parts, groups_per_replica * parts, replicas, whole_islands_only=False)
        if pieces is not None:
            return tuple(_join(replica, parts) for replica in pieces)
    return None


def _join(pieces: Replica, parts: int) -> Replica:
    return tuple(
        tuple(seat for piece in pieces[start : start + parts] for seat in piece)
        for start in range(0, len(pieces), parts)
    )
