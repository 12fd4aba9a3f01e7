"""Sockets bound before a server is made of them, so that a taken address is an error of ours, in one line."""

from __future__ import annotations

import socket
from pathlib import Path

from orchestrator.errors import ConfigError


def bound_socket(host: str, port: int = 0) -> socket.socket:
    """A socket bound to `host`:`port`, 0 for a port that the system chooses; raises `ConfigError` if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound


def bound_unix_socket(path: Path) -> socket.socket:
    """A socket bound to `path`, in place of one that a killed process left there."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    return bound
