"""`chat`: talk to a deployed model."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from orchestrator.cli.output import JsonOption, err, print_json
from orchestrator.cli.remote import way_in_of
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.session import the_front
from orchestrator.errors import ConfigError
from orchestrator.remote.forward import WayIn
from orchestrator.store.secrets import ensure_api_key, read_api_key

HELP = """Ask a deployed model; without QUESTION, talk until an empty line.

    orchestrator chat smol-moe "What is the capital of France?"
"""


def chat(
    context: typer.Context,
    model: str = typer.Argument(..., help="The name it is served under."),
    question: str = typer.Argument(None, help="One question; its answer is printed.", show_default=False),
    max_tokens: int = typer.Option(256, min=1, help="The longest answer, in tokens."),
    temperature: float = typer.Option(0.0, min=0, help="0 gives the most likely answer each time."),
    as_json: bool = JsonOption,
) -> None:
    if as_json and question is None:
        raise ConfigError("--json needs a QUESTION")
    way_in = way_in_of(context) or WayIn(the_front().base_url, ensure_api_key())
    api = PublicApi(way_in.base_url, read_api_key(way_in.api_key_path))
    messages: list[dict[str, str]] = []
    for asked in [question] if question is not None else _questions():
        messages.append({"role": "user", "content": asked})
        parts = []
        for text in api.chat(model, messages, max_tokens=max_tokens, temperature=temperature):
            parts.append(text)
            if not as_json:
                sys.stdout.write(text)
                sys.stdout.flush()
        messages.append({"role": "assistant", "content": "".join(parts)})
        if not as_json:
            sys.stdout.write("\n")
    if as_json:
        print_json({"model": model, "answer": messages[-1]["content"]})


def _questions() -> Iterator[str]:
    while True:
        err.print("you: ", end="", highlight=False)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
