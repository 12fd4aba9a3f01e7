"""Ours against vLLM's own server: the same engine, arguments and client, in one run, taking turns.

    scripts/bench engine [--rounds 5] [--starts 1] [--json]

Two tables. Streams: output tokens/s and time to first token at 1, 4 and 16 streams, as the median of the rounds, and
the ratio ours/bare, as the median of each round's own ratio. Start: seconds from nothing to the first token, against
vLLM's own server to its first token plus Ray's own start, which are the parts that ours is made of.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.store.home import subfolder
from tests.engine.harness import BareServer, Cli
from tests.ports import free_port

MODEL = "smol-moe"
STREAMS = (1, 4, 16)
TOKENS = 64


@dataclass(frozen=True)
class Sample:
    """One burst: `streams` requests at once, each `TOKENS` long."""

    streams: int
    tokens_per_s: float
    ttft_s: float


async def _one(client: httpx.AsyncClient, number: int) -> tuple[float, int]:
    """Seconds to the first token, and how many came."""
    body = {
        "model": MODEL, "prompt": f"Story number {number}: once upon a time", "max_tokens": TOKENS,
        "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    begun, first, tokens = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                first = first or time.perf_counter() - begun
                usage = json.loads(line[6:]).get("usage")
                tokens = usage["completion_tokens"] if usage else tokens
    return first, tokens


async def _burst(base_url: str, key: str, streams: int, seed: int) -> Sample:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=300, trust_env=False) as client:
        begun = time.perf_counter()
        answers = await asyncio.gather(*(_one(client, seed * 100 + number) for number in range(streams)))
        spent = time.perf_counter() - begun
    ttft_s = statistics.median(first for first, _ in answers)
    return Sample(streams, sum(tokens for _, tokens in answers) / spent, ttft_s)


def compare_streams(bare: tuple[str, str], ours: tuple[str, str], rounds: int) -> list[dict[str, float]]:
    """Rows of the first table; who goes first changes with every round, and prompts never repeat."""
    samples: dict[str, list[Sample]] = {"bare": [], "ours": []}
    servers = {"bare": bare, "ours": ours}
    for number in range(-1, rounds):  # round -1 warms both up and is not counted
        for streams in STREAMS:
            order = ("bare", "ours") if number % 2 else ("ours", "bare")
            for turn, name in enumerate(order):
                sample = asyncio.run(_burst(*servers[name], streams, (number + 2) * 10 + turn))
                if number >= 0:
                    samples[name].append(sample)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return [_row(streams, samples) for streams in STREAMS]


def _row(streams: int, samples: dict[str, list[Sample]]) -> dict[str, float]:
    bare = [sample for sample in samples["bare"] if sample.streams == streams]
    ours = [sample for sample in samples["ours"] if sample.streams == streams]
    ratios = [o.tokens_per_s / b.tokens_per_s for o, b in zip(ours, bare, strict=True)]
    return {
        "streams": streams,
        "bare_tokens_per_s": statistics.median(s.tokens_per_s for s in bare),
        "ours_tokens_per_s": statistics.median(s.tokens_per_s for s in ours),
        "ratio_tokens_per_s": statistics.median(ratios),
        "bare_ttft_s": statistics.median(s.ttft_s for s in bare),
        "ours_ttft_s": statistics.median(s.ttft_s for s in ours),
    }


def _timed_bare(cli: Cli) -> tuple[float, BareServer]:
    begun = time.monotonic()
    server = BareServer(cli, MODEL)
    begun += server.prepared_s
    server.wait_until_ready()
    asyncio.run(_burst(server.base_url(), "none", 1, 0))
    return time.monotonic() - begun, server


def _timed_ray(home: Path) -> float:
    """Ray's own start: `ray start --head` until its dashboard answers, as `deploy` waits for it, then ended again."""
    env = {**os.environ, "ORCHESTRATOR_HOME": str(home), "RAY_AUTH_TOKEN_PATH": str(home / "ray-token")}
    code = (
        "import time; from orchestrator.deploy import cluster; begun = time.monotonic();"
        "cluster.start_local(lambda _: None); print(time.monotonic() - begun); cluster.stop_local()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "cache").symlink_to(subfolder("cache"))
        result = _measure(Cli(home, free_port()), arguments.rounds, arguments.starts)
    print(json.dumps(result, indent=1) if arguments.json else _tables(result))


def _measure(cli: Cli, rounds: int, starts: int) -> dict[str, Any]:
    begins: list[dict[str, float]] = []
    server: BareServer | None = None
    try:
        for _ in range(starts):
            if server is not None:
                server.stop()
                cli.run("down")
            print("  starting vLLM's own server, then Ray alone, then ours", file=sys.stderr, flush=True)
            bare_s, server = _timed_bare(cli)
            server.stop()
            ray_s = _timed_ray(cli.home)
            begun = time.monotonic()
            said = cli.deploy(MODEL)
            ours_s = time.monotonic() - begun
            begins.append({"bare_s": bare_s, "ray_s": ray_s, "ours_s": ours_s, "ratio": ours_s / (bare_s + ray_s)})
            print(f"  {said['phases_seconds']}", file=sys.stderr, flush=True)
            _, server = _timed_bare(cli)
        assert server is not None
        rows = compare_streams((server.base_url(), "none"), (cli.base_url(), cli.key()), rounds)
    finally:
        if server is not None:
            server.stop()
        cli.run("down")
    return {"date": time.strftime("%Y-%m-%d"), "model": MODEL, "streams": rows, "starts": begins}


def _tables(result: dict[str, Any]) -> str:
    streams = [
        "| streams | vLLM tok/s | ours tok/s | ours/vLLM | vLLM TTFT ms | ours TTFT ms |",
        "|---|---|---|---|---|---|",
    ]
    streams += [
        f"| {row['streams']} | {row['bare_tokens_per_s']:.1f} | {row['ours_tokens_per_s']:.1f} | "
        f"{row['ratio_tokens_per_s']:.1%} | {row['bare_ttft_s'] * 1000:.0f} | {row['ours_ttft_s'] * 1000:.0f} |"
        for row in result["streams"]
    ]
    starts = ["| first token after | vLLM's own server | Ray alone | ours | ours / both |", "|---|---|---|---|---|"]
    starts += [
        f"| | {row['bare_s']:.1f} s | {row['ray_s']:.1f} s | {row['ours_s']:.1f} s | {row['ratio']:.1%} |"
        for row in result["starts"]
    ]
    return "\n".join([*streams, "", *starts])


if __name__ == "__main__":
    main()
