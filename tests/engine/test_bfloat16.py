"""In bfloat16, where sums in another order come out a little different: what may differ, and by how much."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engine.harness import QUESTIONS, Cli, answers_of_the_bare_server, greedy_with_likeliest

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1500)]

Record = Callable[[str, object], None]
# Rounding may send a token to another expert, which changes it a lot; most tokens go where they went.
USUAL_DIFFERENCE = 0.1


def test_greedy_tokens_differ_from_vllms_own_server_only_at_ties(apart: Cli, record_property: Record) -> None:
    """Same engine, same arguments: what lies between engine and client changes nothing.

    vLLM's own server decides a tie of two bfloat16 logits differently from one start to the next, so that how many
    answers are equal to the last token differs too. In float32 all are: `test_serving.py`.
    """
    theirs = answers_of_the_bare_server(apart, "smol-moe")
    apart.deploy("smol-moe")
    pairs = list(zip(theirs, greedy_with_likeliest(apart.client(), "smol-moe"), strict=True))
    assert not [(bare.tokens, ours.tokens) for bare, ours in pairs if not bare.agrees_with(ours.tokens)]
    same = sum(bare.tokens == ours.tokens for bare, ours in pairs)
    record_property("shown", f"{same} of {len(pairs)} answers equal to the token, the others up to a tie")
    apart.json("down")


def test_layouts_differ_in_log_probabilities_by_rounding_alone(apart: Cli, record_property: Record) -> None:
    """The same text under one rank, and under four in two shapes: every token's log-probability."""
    alone = _log_probabilities(apart, 1, 1, expert=False)
    for tensor, pipeline, expert in ((2, 2, False), (2, 1, True)):
        others = _log_probabilities(apart, tensor, pipeline, expert)
        differences = sorted(abs(one - other) for one, other in zip(alone, others, strict=True))
        usual, largest = differences[len(differences) // 2], differences[-1]
        record_property(
            "shown",
            f"TP {tensor} × PP {pipeline}{' + EP' if expert else ''} against one rank: log-probabilities of "
            f"{len(alone)} tokens differ by {usual:.4f} in the median and at most by {largest:.4f}",
        )
        assert usual < USUAL_DIFFERENCE


def _log_probabilities(cli: Cli, tensor: int, pipeline: int, expert: bool) -> list[float]:
    """Of every token of the questions after its first, as the engine sees them in its prompt."""
    cli.deploy(
        "kimi-k2-mini", "--emulate", "--gpus", "4+4xH100",
        "--tensor-parallel-size", str(tensor), "--pipeline-parallel-size", str(pipeline),
        "--enable-expert-parallel" if expert else "--no-enable-expert-parallel",
    )  # fmt: skip
    found: list[float] = []
    for question in QUESTIONS:
        answer = cli.client().completions.create(
            model="kimi-k2-mini", prompt=question, max_tokens=1, temperature=0, echo=True, logprobs=0
        )
        seen = answer.choices[0].logprobs.token_logprobs
        found += [value for value in seen[1:-1] if value is not None]
    assert len(found) > len(QUESTIONS)
    return found
