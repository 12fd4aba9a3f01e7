"""Where weights come from is one of three things, said without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.weights.source import HubSource, StoreSource, check_revision, parse_source

COMMIT = "a" * 40


def test_the_three_kinds_are_told_apart(tmp_path: Path) -> None:
    assert parse_source("hf://org/name") == HubSource("org/name")
    assert parse_source(f"hf://org/name@{COMMIT}") == HubSource("org/name", COMMIT)
    assert parse_source("s3://bucket/models/kimi/") == StoreSource("s3://bucket/models/kimi")
    assert parse_source(str(tmp_path)) == StoreSource(f"file://{tmp_path}")


def test_what_is_printed_is_read_back() -> None:
    for text in ("hf://org/name", "hf://org/name@v1.0", "gs://bucket/kimi"):
        assert str(parse_source(text)) == text


def test_only_a_commit_cannot_move() -> None:
    assert HubSource("org/name", COMMIT).commit == COMMIT
    assert HubSource("org/name", "main").commit is None
    assert HubSource("org/name").commit is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hf://name", "names no repository"),
        ("hf://org/name@", "names no repository"),
        ("/absent/folder", "is no folder"),
        ("https://me:secret@host/model", "name or a password"),
    ],
)
def test_what_is_none_of_them_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        parse_source(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("revision", ["", "../../x", "a b", "--upload", "x" * 300])
def test_a_revision_is_a_commit_a_branch_or_a_tag(revision: str) -> None:
    with pytest.raises(ConfigError, match="--revision"):
        check_revision(revision)


def test_branches_with_slashes_are_revisions() -> None:
    assert check_revision("refs/pr/1") == "refs/pr/1"
