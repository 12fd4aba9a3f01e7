"""The Hugging Face hub as a source, by its own library, at an exact commit."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from orchestrator.errors import CheckpointUnavailable, OrchestratorError, UnknownModel
from orchestrator.weights import cache
from orchestrator.weights.manifest import safe_name
from orchestrator.weights.origin import Advance, Listing, RemoteFile, Unreachable
from orchestrator.weights.source import MAIN, HubSource

ASK_TIMEOUT_S = 30.0
# A download that is alive writes all the time; one that was killed leaves a file nobody writes to any more.
ABANDONED_AFTER_S = 600.0
_HTTP_LIBRARIES = ("httpx", "httpx2", "requests")


class HubOrigin:
    """A repository at the revision of its source; `main` where there is none."""

    def __init__(self, source: HubSource) -> None:
        self._source = source
        # What the library says about its retries would tear the progress bars apart; the last error is told here.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    def listing(self) -> Listing:
        revision = self._source.revision or MAIN
        try:
            info = HfApi().model_info(self._source.hf_id, revision=revision, files_metadata=True, timeout=ASK_TIMEOUT_S)
        except Exception as error:
            raise explain(error, self._source) from error
        if info.sha is None:
            raise CheckpointUnavailable(f"the hub names no commit for {self._source}; is HF_ENDPOINT a full mirror?")
        files = [_remote_file(sibling, self._source) for sibling in info.siblings or ()]
        return Listing(info.sha, {file.name: file for file in files})

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> None:
        """Into the hub's cache where `folder` is the cache's own, else as a plain file.

        A connection that breaks is taken up again where it broke. Of a process that ends, whole files stay.
        """
        where: dict[str, Any] = {"local_dir": folder}
        if self._is_snapshot(folder, listing.revision):
            where = {"cache_dir": cache.hub_folder()}
        try:
            hf_hub_download(
                self._source.hf_id, file.name, revision=listing.revision, tqdm_class=_counting(advance), **where
            )
        except OrchestratorError:
            raise
        except Exception as error:
            raise explain(error, self._source) from error

    def kept_bytes(self, listing: Listing, file: RemoteFile, folder: Path) -> int:  # noqa: ARG002 - as every origin has it
        """None: the library lets go of what it has of a file whose download ends early."""
        return 0

    def sweep(self, folder: Path, revision: str) -> None:
        """Remove what killed downloads left behind."""
        parts = folder / ".cache" / "huggingface" / "download"
        if self._is_snapshot(folder, revision):
            parts = cache.repository(self._source.hf_id) / "blobs"
        for path in parts.rglob("*.incomplete"):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink(missing_ok=True)

    def _is_snapshot(self, folder: Path, revision: str) -> bool:
        return folder == cache.snapshot(self._source.hf_id, revision)


def explain(error: Exception, source: HubSource) -> Exception:
    """The library's error as one line with the way out; a bug stays as it is."""
    hf_id, page = source.hf_id, f"https://huggingface.co/{source.hf_id}"
    has_token = get_token() is not None
    if isinstance(error, GatedRepoError):
        if has_token:
            return CheckpointUnavailable(
                f"{hf_id} is gated, and the account of this token has no access (HTTP {_status(error)}); "
                f"ask for it on {page}"
            )
        return CheckpointUnavailable(
            f"{hf_id} is gated and no token is set (HTTP {_status(error)}); accept its licence on {page}, then put a "
            "token into HF_TOKEN, or into the file that HF_TOKEN_PATH names"
        )
    if isinstance(error, RevisionNotFoundError):
        return UnknownModel(f"{hf_id} has no revision {source.revision!r}; its commits are listed on {page}/commits")
    if isinstance(error, RepositoryNotFoundError):
        hidden = "this token does not see it" if has_token else "it is private and needs a token in HF_TOKEN"
        return UnknownModel(f"{hf_id} is not on the Hugging Face hub, or {hidden} (HTTP {_status(error)})")
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{source} was not asked for: HF_HUB_OFFLINE is set; {_WITHOUT_NETWORK}")
    if isinstance(error, LocalEntryNotFoundError):
        return Unreachable(f"the Hugging Face hub broke off while fetching {hf_id}; pull again, it goes on from there")
    if isinstance(error, EntryNotFoundError):
        return CheckpointUnavailable(f"{hf_id} lists a file that it does not give: {_line(error)}")
    if isinstance(error, HfHubHTTPError):
        if _status(error) == 401:
            return CheckpointUnavailable(
                "the hub does not accept this token (HTTP 401); see HF_TOKEN and HF_TOKEN_PATH"
            )
        if _status(error) == 429 or _status(error) >= 500:
            return Unreachable(f"the hub answers {_status(error)} for {hf_id}; pull again later, it goes on from there")
        return CheckpointUnavailable(f"the hub answers {_status(error)} for {hf_id}: {_line(error)}")
    if _of_http(error):
        return Unreachable(
            f"no network: the Hugging Face hub cannot be reached ({type(error).__name__}); {_WITHOUT_NETWORK}"
        )
    return error


_WITHOUT_NETWORK = (
    "pull with --to on a machine that has a network, carry the folder over, and deploy that folder or pull --from it"
)


def _remote_file(sibling: Any, source: HubSource) -> RemoteFile:
    name = safe_name(sibling.rfilename)
    if sibling.size is None:
        raise CheckpointUnavailable(f"the hub tells no size of {name} in {source}; is HF_ENDPOINT a full mirror?")
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(name, sibling.size, sha256, None if sha256 else sibling.blob_id)


def _counting(advance: Advance) -> type:
    """A progress bar, as the library expects one, that draws nothing and counts."""

    class Counting:
        total = 0
        n = 0

        def __init__(self, *_args: object, **_options: object) -> None:
            return None

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_error: object) -> None:
            return None

        def update(self, size_bytes: float | None = 1) -> None:
            advance(int(size_bytes or 0))

        def _ignore(self, *_args: object, **_options: object) -> None:
            return None

        # Bytes on the wire, which compression makes fewer than those on the disk, are not counted.
        update_transfer = set_postfix_str = set_transfer_postfix_str = refresh = close = _ignore

    return Counting


def _of_http(error: Exception) -> bool:
    """Whether the library's own HTTP client failed; which one that is has changed and may again."""
    return any(kind.__module__.partition(".")[0] in _HTTP_LIBRARIES for kind in type(error).__mro__)


def _status(error: HfHubHTTPError) -> int:
    return int(error.response.status_code)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
