"""Tokens counted where the engine hands them out: right for whole answers, streams with and without usage, and aborts.

vLLM's usage comes in a body or a last chunk, which a stream need not have and a client that hangs up never causes.
Every route of its app, however, gets its tokens from two methods of the one engine client; these are wrapped. It costs
an addition for each step of a stream, and no byte of an answer is read again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from deployments import openai_errors
from deployments.governance.accounts import Meter
from deployments.governance.limit_gate import METER


def meter_engine(client: Any) -> None:
    """Count the tokens of a vLLM engine client for the request that asks; what asks outside of one is not counted."""
    _Metering(client)


class _Metering:
    """The engine client's own methods, and what stands in their place."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._generate, self._encode, self._abort = client.generate, client.encode, client.abort
        self._whole: dict[str, Meter] = {}
        client.generate, client.encode, client.abort = self.generate, self.encode, self.abort

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **options: Any) -> Any:
        """As vLLM's. Raises `ValueError`, which its app answers with 400, on a prompt longer than the key may send."""
        meter = METER.get()
        outputs = self._generate(prompt, sampling_params, request_id, **options)
        if meter is None:
            return outputs
        check_prompt(meter, prompt)
        if (most := meter.max_answer_tokens) is not None:
            asked = sampling_params.max_tokens
            sampling_params.max_tokens = most if asked is None else min(asked, most)
        return self._count(outputs, meter, request_id, sampling_params.output_kind.name)

    def encode(self, prompt: Any, *arguments: Any, **options: Any) -> Any:
        """As vLLM's; only prompts count."""
        meter = METER.get()
        outputs = self._encode(prompt, *arguments, **options)
        if meter is None:
            return outputs
        check_prompt(meter, prompt)
        return self._count(outputs, meter, "", "POOLING")

    async def abort(self, request_id: Any, *arguments: Any, **options: Any) -> None:
        """As vLLM's. An answer that was to be handed out whole has used what was written by now."""
        processor = self._client.output_processor
        ended: set[str] = set()
        for each in [request_id] if isinstance(request_id, str) else request_id:
            parent = processor.parent_requests.get(each)
            for known in [each] if parent is None else list(parent.child_requests):
                state = processor.request_states.get(known)
                meter = self._whole.get(state.external_req_id) if state is not None else None
                if state is None or meter is None or state.detokenizer is None:
                    continue
                if state.external_req_id not in ended:  # several choices are written from one prompt
                    meter.prompt(len(state.prompt_token_ids or ()))
                    ended.add(state.external_req_id)
                meter.answer(state.detokenizer.num_output_tokens())
        for each in ended:
            self._whole.pop(each, None)
        await self._abort(request_id, *arguments, **options)

    async def _count(self, outputs: Any, meter: Meter, request_id: str, kind: str) -> AsyncGenerator[Any, None]:
        seen: dict[int, int] = {}
        first = True
        if kind == "FINAL_ONLY":
            self._whole[request_id] = meter
        try:
            async for output in outputs:
                if first:
                    first = False
                    self._whole.pop(request_id, None)
                    meter.prompt(len(output.prompt_token_ids or ()))
                if kind != "POOLING":
                    meter.answer(_new_tokens(output.outputs, seen, kind))
                yield output
        finally:
            await outputs.aclose()
            self._whole.pop(request_id, None)


def _new_tokens(completions: Iterable[Any], seen: dict[int, int], kind: str) -> int:
    """How many tokens came since the last output: deltas are new as they are, the rest are sums by choice."""
    if kind == "DELTA":
        return sum(len(each.token_ids) for each in completions)
    new = 0
    for each in completions:
        new += len(each.token_ids) - seen.get(each.index, 0)
        seen[each.index] = len(each.token_ids)
    return new


def check_prompt(meter: Meter, prompt: Any) -> None:
    """Raise `ValueError` on a prompt longer than the key may send, where its tokens are known before it is read."""
    tokens = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else getattr(prompt, "prompt_token_ids", None)
    most = meter.max_prompt_tokens
    if most is not None and tokens is not None and len(tokens) > most:
        raise ValueError(openai_errors.prompt_too_long(len(tokens), most).message)
