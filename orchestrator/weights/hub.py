"""The Hugging Face hub as a source, by its own library, at an exact commit."""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from orchestrator.errors import CheckpointUnavailable, OrchestratorError, UnknownModel
from orchestrator.weights import cache
from orchestrator.weights.manifest import safe_name
from orchestrator.weights.origin import PART_SUFFIX, Advance, Listing, RemoteFile, Unreachable, part_of
from orchestrator.weights.source import MAIN, HubSource

ASK_TIMEOUT_S = 30.0
# A download that is alive writes all the time; one that was killed leaves a file nobody writes to any more.
ABANDONED_AFTER_S = 600.0
# Of a smaller file nothing is kept: the library reads 10 MiB at a time, and what it has of them is lost with it.
RESUMED_FROM_BYTES = 10 << 20
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

        The library links the cache together, and brings what it has a faster protocol for (Xet), a file at a time. A
        large file that comes by HTTP goes on where an earlier transfer of it broke off, whichever process that was.
        """
        where: dict[str, Any] = {"local_dir": folder}
        if self._is_snapshot(folder, listing.revision):
            where = {"cache_dir": cache.hub_folder()}
        count = _counting(advance)
        try:
            if file.size_bytes >= RESUMED_FROM_BYTES and not (folder / file.name).is_file():
                self._bring_blob(listing, file, folder, count)
            hf_hub_download(
                self._source.hf_id, file.name, revision=listing.revision, tqdm_class=cast(Any, count), **where
            )
        except OrchestratorError:
            raise
        except Exception as error:
            raise explain(error, self._source, fetching=file.name) from error

    def kept_bytes(self, listing: Listing, file: RemoteFile, folder: Path) -> int:
        try:
            size_bytes = self._part(listing, file, folder).stat().st_size
        except OSError:
            return 0
        return size_bytes if size_bytes <= file.size_bytes else 0

    def _bring_blob(self, listing: Listing, file: RemoteFile, folder: Path, count: type) -> None:
        """The file's bytes where the library will look for them, unless it has a faster way to bring them."""
        url = hf_hub_url(self._source.hf_id, file.name, revision=listing.revision)
        told = get_hf_file_metadata(url)
        if told.etag is None or (told.xet_file_data is not None and _speaks_xet()):
            return
        target, part = folder / file.name, self._part(listing, file, folder)
        if self._is_snapshot(folder, listing.revision):
            target = self._blobs() / told.etag
        target.parent.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        kept_bytes = self.kept_bytes(listing, file, folder)
        with part.open("r+b" if kept_bytes else "wb") as local:
            local.seek(kept_bytes)
            http_get(
                url,
                local,
                resume_size=kept_bytes,
                headers=build_hf_headers(),
                expected_size=file.size_bytes,
                tqdm_class=cast(Any, count),
            )
        part.replace(target)

    def _part(self, listing: Listing, file: RemoteFile, folder: Path) -> Path:
        if self._is_snapshot(folder, listing.revision):
            return self._blobs() / f"{file.sha256 or file.git_sha1}{PART_SUFFIX}"
        return part_of(folder / file.name, listing.revision)

    def _blobs(self) -> Path:
        return cache.repository(self._source.hf_id) / "blobs"

    def sweep(self, folder: Path, revision: str) -> None:
        """Remove what killed downloads left behind."""
        parts = folder / ".cache" / "huggingface" / "download"
        if self._is_snapshot(folder, revision):
            parts = self._blobs()
        for path in parts.rglob("*.incomplete"):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                path.unlink(missing_ok=True)

    def _is_snapshot(self, folder: Path, revision: str) -> bool:
        return folder == cache.snapshot(self._source.hf_id, revision)


def explain(error: Exception, source: HubSource, fetching: str = "") -> Exception:
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
        return Unreachable(f"no answer for a file of {hf_id}; pull again, it goes on from there")
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
    if _of_http(error) and fetching:
        return Unreachable(
            f"the connection broke off while fetching {fetching} of {hf_id} ({type(error).__name__}); "
            "pull again, it goes on from there"
        )
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


def _speaks_xet() -> bool:
    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


def _of_http(error: Exception) -> bool:
    """Whether the library's own HTTP client failed; which one that is has changed and may again."""
    return any(kind.__module__.partition(".")[0] in _HTTP_LIBRARIES for kind in type(error).__mro__)


def _status(error: HfHubHTTPError) -> int:
    return int(error.response.status_code)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
