"""Where weights come from: a repository of the Hugging Face hub, a folder, or an object store. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError

HF_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What somebody may call weights that come from elsewhere than the hub.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"
_REVISION = re.compile(r"[\w.][\w./-]{0,199}")
_HUB = re.compile(r"hf://(?P<hf_id>[^@]+)(@(?P<revision>.+))?")
_WAYS = "a folder, hf://org/name@revision, or a URL that fsspec reads (s3://, gs://, …)"


@dataclass(frozen=True)
class HubSource:
    """A repository of the hub; without a revision its `main`, whatever that is when it is asked."""

    hf_id: str
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The revision, where it is a commit and so cannot move."""
        return self.revision if self.revision and COMMIT.fullmatch(self.revision) else None

    def __str__(self) -> str:
        return f"hf://{self.hf_id}@{self.revision}" if self.revision else f"hf://{self.hf_id}"


@dataclass(frozen=True)
class StoreSource:
    """A folder of files behind a URL that fsspec reads; `file://` for one of this machine."""

    url: str

    def __str__(self) -> str:
        return self.url


Source = HubSource | StoreSource


def parse_source(text: str) -> Source:
    """What `--from` names. Raises `ConfigError` for what is none of the three, and for secrets in a URL."""
    if text.startswith("hf://"):
        return _hub(text)
    if "://" not in text:
        return _folder(text)
    if "@" in urlsplit(text).netloc:
        raise ConfigError(
            "--from: the URL carries a name or a password, which logs and process lists would show; "
            "leave them to the store's own settings on each machine (AWS_PROFILE, a service account, …)"
        )
    return StoreSource(text.rstrip("/"))


def check_revision(revision: str) -> str:
    """The revision, if it may be one: a commit, a branch or a tag. Raises `ConfigError` otherwise."""
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise ConfigError(f"--revision is {revision!r}; it must be a commit hash, a branch or a tag")
    return revision


def _hub(text: str) -> HubSource:
    match = _HUB.fullmatch(text)
    if match is None or not HF_ID.fullmatch(match["hf_id"]):
        raise ConfigError(f"--from {text!r} names no repository; write hf://org/name or hf://org/name@revision")
    return HubSource(match["hf_id"], check_revision(match["revision"]) if match["revision"] else None)


def _folder(text: str) -> StoreSource:
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"--from {text!r} is no folder; it must be {_WAYS}")
    return StoreSource(f"file://{folder.resolve()}")
