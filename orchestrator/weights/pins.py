"""Which commit of a model was pulled last, remembered for deployments to machines whose cache is not this one's."""

from __future__ import annotations

from orchestrator.store.home import locked, read_record, write_record
from orchestrator.weights.source import COMMIT

RECORD = "revisions"


def remember(hf_id: str, revision: str) -> None:
    """Keep the commit; what is no commit (a copy from a store) is no revision that a hub knows."""
    if not COMMIT.fullmatch(revision):
        return
    with locked(RECORD):
        write_record(RECORD, {**(read_record(RECORD) or {}), hf_id: revision})


def pinned(hf_id: str) -> str | None:
    """The commit that was pulled last, if any was."""
    revision = (read_record(RECORD) or {}).get(hf_id)
    return revision if isinstance(revision, str) and COMMIT.fullmatch(revision) else None
