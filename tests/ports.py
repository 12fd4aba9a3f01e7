"""Ports for what a test starts."""

from __future__ import annotations

import random
import socket

# Below the ports that Linux gives to whoever asks for any (from 32768): those are taken at random by every Ray and
# vLLM process. Above the ones that Ray's workers listen on (10002 to 19999).
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody is given by chance before the test uses it."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("100 ports are taken; what holds them?")
