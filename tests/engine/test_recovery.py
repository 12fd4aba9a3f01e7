"""An engine that dies while it serves: the API says so at once, and Serve brings it back by itself."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request

import pytest

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(600)]

MODEL = "kimi-k2-mini"


def _ask(cli: Cli) -> tuple[int, str | None]:
    """Status and `Retry-After` of one request."""
    request = urllib.request.Request(
        f"{cli.base_url()}/completions",
        data=b'{"model": "kimi-k2-mini", "prompt": "Hello", "max_tokens": 1}',
        headers={"content-type": "application/json", "authorization": f"Bearer {cli.key()}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, None
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers.get("retry-after")


def test_a_killed_engine_gives_503_with_retry_after_and_comes_back(cli: Cli) -> None:
    cli.deploy(MODEL)
    assert _ask(cli)[0] == 200
    engine = next(process for process in cli.processes() if "VLLM::EngineCore" in " ".join(process.cmdline()))
    engine.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    seen: set[tuple[int, str | None]] = set()
    while time.monotonic() - killed < 240:
        answer = _ask(cli)
        seen.add(answer)
        if answer[0] == 200 and any(status == 503 for status, _ in seen):
            break
        time.sleep(0.5)
    else:
        pytest.fail(f"not back within 240 s; answers were {seen}")
    assert all(retry for status, retry in seen if status == 503), seen
    assert {status for status, _ in seen} <= {200, 500, 502, 503}
    cli.json("delete", MODEL)
