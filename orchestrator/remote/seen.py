"""The way in as the person sees it who typed the command, who may sit at another machine than the one that runs it."""

from __future__ import annotations

import os

_BASE_URL = "ORCHESTRATOR_SEEN_BASE_URL"
_KEY_FILE = "ORCHESTRATOR_SEEN_KEY_FILE"


def base_url(here: str) -> str:
    """What that person's SDK takes as `base_url`, where `here` is what it would be on this machine."""
    return os.environ.get(_BASE_URL) or here


def api_key_file(here: str) -> str:
    """Where that person finds the API key."""
    return os.environ.get(_KEY_FILE) or here


def environment(base_url: str, api_key_file: str) -> dict[str, str]:
    """The environment that makes a command speak of these."""
    return {_BASE_URL: base_url, _KEY_FILE: api_key_file}
