"""What governance costs: tokens a second through the front, with keys and limits and without, in one run.

Two replicas that stand behind the same HAProxy emit one chunk every 20 ms a stream: one with nothing before its engine,
one with key gate, limits (a key that has all of them) and metering. They are measured in turn by the same client; what
is printed is the median of each, their ratio, and the CPU seconds of the replica for a million tokens.

    scripts/bench gateway [--streams 256] [--tokens 64] [--rounds 5] [--interval 0.02]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from orchestrator.store.database import file_url, open_database
from orchestrator.store.keys import KeyStore
from orchestrator.store.limits import LARGEST, Limits
from tests.serve.front_process import FrontProcess, eventually, running_front

EVERY_LIMIT = Limits(*[LARGEST // 10] * 7)


async def _stream(front: FrontProcess, request: bytes) -> int:
    """Send one request over a connection of its own; the chunks that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(request)
    chunks = 0
    while data := await reader.read(65536):
        chunks += data.count(b'"delta"')
    writer.close()
    return chunks


def _request(front: FrontProcess, model: str, key: str, tokens: int) -> bytes:
    asked = {"model": model, "messages": "Hello", "max_tokens": tokens, "stream": True}
    body = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{front.port}\r\nConnection: close\r\n"
    return f"{head}Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _measure(front: FrontProcess, model: str, key: str, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens a second, and the replica's CPU seconds for a million of them."""
    request = _request(front, model, key, options.tokens)
    replica = psutil.Process(front.replicas[model].pid)
    before, began = sum(replica.cpu_times()[:2]), time.perf_counter()
    chunks = await asyncio.gather(*(_stream(front, request) for _ in range(options.streams)))
    spent_s, took_s = sum(replica.cpu_times()[:2]) - before, time.perf_counter() - began
    wanted = options.streams * options.tokens
    if sum(chunks) != wanted:
        raise SystemExit(f"{model}: {sum(chunks)} of {wanted} tokens came")
    return wanted / took_s, spent_s / wanted * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--interval", type=float, default=0.02)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_front(Path(folder)) as front:
        store = KeyStore(open_database(file_url(Path(folder) / "keys.db")), time.time)
        _, key = store.create("bench", limits=EVERY_LIMIT)
        for model, more in (("bare", ["--bare"]), ("governed", [])):
            front.add_replica(model, model, "--interval", str(options.interval), *more)
        eventually(lambda: front.served("bare") and front.served("governed"))
        time.sleep(2)  # the key is in force everywhere
        asyncio.run(_measure(front, "governed", key, options))
        found: dict[str, list[tuple[float, float]]] = {"bare": [], "governed": []}
        for number in range(2 * options.rounds):
            model = ("bare", "governed")[number % 2]
            found[model].append(asyncio.run(_measure(front, model, key, options)))
    medians = {model: [statistics.median(each) for each in zip(*rows, strict=True)] for model, rows in found.items()}
    for model, (speed, cpu_s) in medians.items():
        print(f"{model:9} {speed:9.0f} tokens/s   {cpu_s:7.1f} CPU s of the replica for a million tokens")
    print(f"ratio     {medians['governed'][0] / medians['bare'][0]:9.3f}            {options.streams} streams")


if __name__ == "__main__":
    main()
