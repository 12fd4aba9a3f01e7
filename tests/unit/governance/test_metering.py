"""Tokens as the engine hands them out: the same count for whole answers, deltas, sums, several choices and aborts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace as Some
from typing import Any

import pytest

from deployments.governance.accounts import Account, Meter
from deployments.governance.leases import TOKENS
from deployments.governance.limit_gate import METER
from deployments.governance.metering import meter_engine
from orchestrator.store.limits import Limits


class Engine:
    """An engine client in vLLM's shape: each step adds a token to each of `choices` answers."""

    def __init__(self, steps: int, choices: int = 1) -> None:
        self._steps, self._choices = steps, choices
        self.aborted: list[str] = []
        self.output_processor = Some(parent_requests={}, request_states={})

    async def generate(self, _prompt: Any, params: Any, request_id: str, **_options: Any) -> AsyncGenerator[Any, None]:
        steps = min(self._steps, params.max_tokens or self._steps)
        kind, written = params.output_kind.name, 0
        detokenizer = Some(num_output_tokens=lambda: written)
        state = Some(external_req_id=request_id, prompt_token_ids=[1, 2, 3], detokenizer=detokenizer)
        self.output_processor.request_states |= {f"inner-{n}": state for n in range(self._choices)}
        children = list(self.output_processor.request_states)
        self.output_processor.parent_requests["inner"] = Some(child_requests=children)
        try:
            for step in range(1, steps + 1):
                await asyncio.sleep(0)
                written = step
                if kind == "FINAL_ONLY" and step < steps:
                    continue
                ids = [0] if kind == "DELTA" else [0] * step
                outputs = [Some(index=index, token_ids=ids) for index in range(self._choices)]
                yield Some(prompt_token_ids=[1, 2, 3], outputs=outputs)
        except (asyncio.CancelledError, GeneratorExit):
            await self.abort("inner", internal=True)
            raise

    async def encode(self, _prompt: Any, *_arguments: Any, **_options: Any) -> AsyncGenerator[Any, None]:
        yield Some(prompt_token_ids=[1, 2, 3], outputs=Some(data=[0.5]))

    async def abort(self, request_id: Any, internal: bool = False) -> None:
        assert internal
        self.aborted.append(request_id)


def params(kind: str, max_tokens: int | None = None) -> Any:
    return Some(output_kind=Some(name=kind), max_tokens=max_tokens)


def metered(limits: Limits = Limits()) -> tuple[Account, Meter]:
    account = Account()
    meter = Meter(account, limits, (0, 0), lambda: None)
    METER.set(meter)
    return account, meter


@pytest.mark.parametrize("kind", ["DELTA", "CUMULATIVE", "FINAL_ONLY"])
@pytest.mark.parametrize("choices", [1, 3])
def test_every_kind_of_answer_counts_the_same(kind: str, choices: int) -> None:
    async def scenario() -> Account:
        engine = Engine(7, choices)
        meter_engine(engine)
        account, _ = metered()
        async for _ in engine.generate({}, params(kind), "r"):
            pass
        return account

    account = asyncio.run(scenario())
    assert (account.tokens_in, account.tokens_out) == (3, 7 * choices)
    assert account.leases[TOKENS].spent == 3 + 7 * choices


@pytest.mark.parametrize("kind", ["DELTA", "FINAL_ONLY"])
@pytest.mark.parametrize("choices", [1, 2])
def test_what_a_client_that_hangs_up_has_caused_is_counted(kind: str, choices: int) -> None:
    async def scenario() -> tuple[Account, Engine]:
        engine = Engine(10_000, choices)
        meter_engine(engine)
        account, _ = metered()

        async def run() -> None:
            async for _ in engine.generate({}, params(kind), "r"):
                pass

        running = asyncio.create_task(run())
        for _ in range(60):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return account, engine

    account, engine = asyncio.run(scenario())
    assert engine.aborted == ["inner"]
    assert account.tokens_in == 3
    assert 20 * choices < account.tokens_out < 10_000


def test_prompts_of_embeddings_count() -> None:
    async def scenario() -> Account:
        engine = Engine(1)
        meter_engine(engine)
        account, _ = metered()
        async for _ in engine.encode({}, None, "r"):
            pass
        return account

    account = asyncio.run(scenario())
    assert (account.tokens_in, account.tokens_out) == (3, 0)


def test_a_prompt_beyond_the_keys_limit_is_refused_before_anything_is_answered() -> None:
    engine = Engine(1)
    meter_engine(engine)
    metered(Limits(max_prompt_tokens=2))
    with pytest.raises(ValueError, match="The prompt has 3 tokens; this API key may send 2"):
        engine.generate({"prompt_token_ids": [1, 2, 3]}, params("DELTA"), "r")


@pytest.mark.parametrize(("asked", "given"), [(None, 5), (3, 3), (9, 5)])
def test_an_answer_ends_at_the_keys_limit(asked: int | None, given: int) -> None:
    async def scenario() -> int:
        engine = Engine(50)
        meter_engine(engine)
        account, _ = metered(Limits(max_answer_tokens=5))
        async for _ in engine.generate({}, params("DELTA", asked), "r"):
            pass
        return account.tokens_out

    assert asyncio.run(scenario()) == given


def test_what_runs_outside_of_a_request_is_left_alone() -> None:
    async def scenario() -> int:
        METER.set(None)
        engine = Engine(4)
        meter_engine(engine)
        return len([each async for each in engine.generate({}, params("DELTA"), "r")])

    assert asyncio.run(scenario()) == 4
