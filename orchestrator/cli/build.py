"""`build`: make a demo model with other options than the ones `deploy` takes."""

from __future__ import annotations

import typer

from orchestrator import demo
from orchestrator.cli.output import JsonOption, err, out, print_json
from orchestrator.store.home import subfolder

HELP = """Build a demo model and print its folder, which `deploy` takes as MODEL. What is whole is not built again.

    orchestrator deploy "$(orchestrator build smol-moe --num-experts 8 --seed 1)" --name eight-experts
"""


def build(
    model: str = typer.Argument(..., help="smol-moe or kimi-k2-mini."),
    num_experts: int = typer.Option(None, help="smol-moe: how many experts.", show_default=False),
    experts_per_token: int = typer.Option(
        None, help="smol-moe: how many of them each token takes.", show_default=False
    ),
    seed: int = typer.Option(None, help="Seed of everything random.", show_default=False),
    dtype: str = typer.Option(None, help="bfloat16 or float32.", show_default=False),
    router_skew: float = typer.Option(
        None, help="0 for an even router; 3 gives almost all to two.", show_default=False
    ),
    full: bool = typer.Option(False, "--full", help="Read and check every byte of what is there."),
    as_json: bool = JsonOption,
) -> None:
    given = {
        "num_experts": num_experts, "experts_per_token": experts_per_token, "seed": seed, "dtype": dtype,
        "router_skew": router_skew,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}

    def say(line: str) -> None:
        err.print(f"  {line}", highlight=False, markup=False)

    folder = demo.ensure(model, subfolder("cache"), options=options, progress=say, verify="full" if full else "quick")
    if as_json:
        print_json({"model": model, "folder": str(folder)})
    else:
        out.print(str(folder), highlight=False, markup=False)
