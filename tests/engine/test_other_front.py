"""The way in where HAProxy cannot run: Ray's own OpenAI ingress behind Serve's proxy, on the real engine."""

from __future__ import annotations

from typing import Any

import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

MODEL = "kimi-k2-mini"
HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def through_serve(apart: Cli) -> Cli:
    """kimi-k2-mini deployed with `--front serve`."""
    assert apart.deploy(MODEL, "--front", "serve")["action"] == "deployed"
    return apart


def test_it_answers_whole_and_streamed(through_serve: Cli) -> None:
    client = through_serve.client()
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 5, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_its_refusals_are_those_of_the_other_front(through_serve: Cli) -> None:
    """401, 404 and 400, each in OpenAI's shape."""
    with pytest.raises(AuthenticationError) as wrong_key:
        through_serve.client(key="moe-wrong").chat.completions.create(model=MODEL, messages=HELLO)
    assert wrong_key.value.response.json()["error"]["code"] == "invalid_api_key"
    with pytest.raises(NotFoundError) as not_found:
        through_serve.client().chat.completions.create(model="gpt-5", messages=HELLO)
    assert not_found.value.response.json()["error"]["code"] == "model_not_found"
    bad: Any = {"messages": HELLO, "max_tokens": "many"}
    with pytest.raises(BadRequestError) as refused:
        through_serve.client().chat.completions.create(model=MODEL, **bad)
    assert refused.value.response.json()["error"]["message"]
