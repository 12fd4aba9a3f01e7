"""How a plan looks on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.plan import Plan, PlannedRank, RankMemory, Rejected
from orchestrator.planner.fitting import label_of
from orchestrator.planner.rejected import parallelism_of
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.score import Contender
from orchestrator.planner.what_if import COUNTS, Choice
from orchestrator.units import format_bytes

# What the other columns of the rank table take; the bar gets the rest.
COLUMNS_WIDTH = 64
BAR_WIDTHS = (10, 32)
# More ranks than this are shown by stage, not one by one.
RANKS_SHOWN = 32
REJECTED_SHOWN = 8
_PARTS = (
    ("weights", "weights_bytes", "█", "blue"),
    ("activations", "activation_bytes", "▓", "magenta"),
    ("overhead", "overhead_bytes", "▒", "yellow"),
    ("KV cache", "kv_cache_bytes", "░", "green"),
    ("free", "free_bytes", "·", "dim"),
)


def print_plan(plan: Plan, notes: Sequence[str], show_all: bool) -> None:
    """The layout, a memory bar for each rank, warnings and notes, and the best of the rejected."""
    console = Console()
    _print_head(console, plan)
    console.print(_rank_table(plan, show_all, console.width))
    console.print(_legend())
    for warning in plan.warnings:
        console.print(Text.assemble(("warning ", "yellow"), (warning.code, "bold"), f": {warning.message}"))
    for note in notes:
        console.print(Text.assemble(("note ", "cyan"), note))
    if plan.rejected:
        console.print(_rejected_table(plan.rejected, show_all))


def _print_head(console: Console, plan: Plan) -> None:
    label = label_of(plan.tightest.memory.headroom)
    kv = plan.kv_cache
    console.print(Text(f"{plan.model.name} on {plan.cluster.name}: {plan.parallelism.label()}", "bold"))
    console.print(
        f"{plan.model.checkpoint} ({plan.model.quantization}), "
        f"{plan.model.total_params / 1e9:,.1f}e9 parameters, {plan.model.active_params / 1e9:,.1f}e9 active; "
        f"{plan.engine.name} {plan.engine.version}, objective {plan.objective}",
        highlight=False,
    )
    console.print(
        f"{kv.capacity_tokens:,} KV tokens ({kv.dtype}), {_count(kv.max_concurrent_sequences, 'request')} of "
        f"{kv.max_model_len:,} tokens at once; headroom {plan.tightest.memory.headroom:.0%}: {label}",
        highlight=False,
    )
    for name, text in plan.sources.items():
        if name.startswith("assumption"):
            console.print(Text(text, "dim"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rank_table(plan: Plan, show_all: bool, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = ["rank", "GPU", "stage", "layers", "weights", "KV cache", "memory"]
    if plan.parallelism.expert:
        headings.insert(4, "experts")
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    rows = plan.ranks if show_all or len(plan.ranks) <= RANKS_SHOWN else _one_per_kind(plan.ranks)
    bar_width = min(max(width - COLUMNS_WIDTH, BAR_WIDTHS[0]), BAR_WIDTHS[1])
    for rank in rows:
        table.add_row(*_cells(rank, plan, bar_width))
    hidden = len(plan.ranks) - len(rows)
    if hidden:
        table.caption = f"{hidden} more ranks with the same memory as one of these; --all shows them"
    return table


def _one_per_kind(ranks: Sequence[PlannedRank]) -> list[PlannedRank]:
    seen: dict[tuple[int, RankMemory], PlannedRank] = {}
    for rank in ranks:
        seen.setdefault((rank.pipeline_stage, rank.memory), rank)
    return list(seen.values())


def _cells(rank: PlannedRank, plan: Plan, bar_width: int) -> list[str | Text]:
    cells: list[str | Text] = [
        f"{rank.replica}.{rank.rank}" if plan.parallelism.replicas > 1 else str(rank.rank),
        f"{rank.node}:{rank.gpu_index}",
        str(rank.pipeline_stage),
        f"{rank.layers[0]}–{rank.layers[1] - 1}",
        format_bytes(rank.memory.weights_bytes),
        format_bytes(rank.memory.kv_cache_bytes),
        memory_bar(rank.memory, bar_width),
    ]
    if plan.parallelism.expert:
        cells.insert(4, span(rank.experts) if rank.experts is not None else "none")
    return cells


def span(numbers: tuple[int, ...]) -> str:
    """`0–31` for consecutive numbers, else the first few and how many there are."""
    if len(numbers) > 1 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    shown = ", ".join(str(number) for number in numbers[:4])
    return shown if len(numbers) <= 4 else f"{shown}, … ({len(numbers)})"


def memory_bar(memory: RankMemory, width: int) -> Text:
    """The five shares of one GPU as a bar of `width` characters."""
    bar, drawn, counted = Text(), 0, 0
    for _, field, character, style in _PARTS:
        counted += getattr(memory, field)
        end = round(counted / memory.capacity_bytes * width)
        bar.append(character * (end - drawn), style)
        drawn = max(drawn, end)
    return bar


def _legend() -> Text:
    legend = Text()
    for name, _, character, style in _PARTS:
        legend.append(f"{character} ", style).append(f"{name}  ", "dim")
    return legend


def _rejected_table(rejected: Sequence[Rejected], show_all: bool) -> Table:
    shown = rejected if show_all else rejected[:REJECTED_SHOWN]
    table = Table("layout", "code", "why not", box=box.SIMPLE_HEAD, title="rejected", title_justify="left")
    for entry in shown:
        table.add_row(entry.parallelism.label(), entry.code, entry.reason)
    if len(shown) < len(rejected):
        codes = Counter(entry.code for entry in rejected[len(shown) :])
        counted = ", ".join(f"{times} × {code}" for code, times in codes.most_common())
        table.caption = f"{len(rejected) - len(shown)} more ({counted}); --all shows them"
    return table


def print_reasons(lines: Iterable[str]) -> None:
    console = Console()
    console.print(Text("why", "bold"))
    for line in lines:
        console.print(line, highlight=False)


def print_choices(request: PlanRequest, choices: Sequence[Choice]) -> None:
    """Which GPUs would do, the fewest first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.title = f"{request.spec.name}: GPUs that would do"
    for heading in ("GPU", "fits from", "headroom", "KV tokens", "production from"):
        table.add_column(heading, no_wrap=True)
    for choice in choices:
        table.add_row(choice.gpu.name, *_smallest(choice.smallest), _with_layout(choice.production))
    Console().print(table)


def _smallest(contender: Contender | None) -> tuple[str, str, str]:
    if contender is None:
        return f"no number up to {COUNTS[-1]}", "", ""
    fit = contender.fit
    return _with_layout(contender), f"{fit.headroom:.0%}", f"{fit.capacity.tokens:,}"


def _with_layout(contender: Contender | None) -> str:
    """`16: TP 8 × PP 2`."""
    if contender is None:
        return "–"
    return f"{contender.num_gpus}: {parallelism_of(contender.layout, 1).label()}"
