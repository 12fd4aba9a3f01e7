"""One listing brought into one folder: fetched side by side, checked byte for byte, and only then marked whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import CheckpointUnavailable
from orchestrator.units import format_bytes
from orchestrator.weights.checkpoint import check_checkpoint
from orchestrator.weights.hub import HubOrigin
from orchestrator.weights.manifest import (
    Damage,
    Digests,
    Manifest,
    complete,
    digests_of,
    forget,
    read_manifest,
    record_of,
    touched,
    write_manifest,
)
from orchestrator.weights.meter import Meter
from orchestrator.weights.origin import Advance, Listing, Origin, RemoteFile
from orchestrator.weights.selection import INDEX, small_files, weight_files
from orchestrator.weights.source import HubSource
from orchestrator.weights.wanted import Wanted
from orchestrator.weights.workers import side_by_side

# Holds the revision that is being fetched, until the manifest does.
BEGUN = ".pull.revision"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Arrived:
    """What is in the folder now, and how much of it was moved."""

    manifest: Manifest
    moved_bytes: int


class Transfer:
    """One listing brought into one folder, whose lock the caller holds."""

    def __init__(self, wanted: Wanted, origin: Origin, listing: Listing, folder: Path, meter: Meter, say: Say) -> None:
        self._wanted, self._origin, self._listing, self._folder = wanted, origin, listing, folder
        self._meter, self._say = meter, say
        self._moved_bytes = 0

    def run(self) -> Arrived:
        manifest = complete(self._folder)
        if manifest is not None and manifest.revision == self._listing.revision and has_code(manifest, self._wanted):
            # Somebody was faster, or a copy lost its times: then its bytes are read once.
            changed = touched(self._folder, manifest)
            if not damage_by_bytes(self._folder, manifest, changed, self._meter):
                self._remember(manifest, changed)
                return Arrived(manifest, 0)
        before = read_manifest(self._folder)
        self._drop_other_revisions(before)
        forget(self._folder)
        if isinstance(self._origin, HubOrigin):
            self._origin.sweep(self._folder, self._listing.revision)
        files = self._fetch_all()
        digests = self._whole(files)
        check_checkpoint(self._folder)
        records = {file.name: record_of(self._folder / file.name, digests[file.name].sha256) for file in files}
        manifest = Manifest(self._wanted.model, self._told_source(), self._listing.revision, records)
        write_manifest(self._folder, manifest)
        self._clear_up(before, manifest)
        return Arrived(manifest, self._moved_bytes)

    def _drop_other_revisions(self, before: Manifest | None) -> None:
        """Where the source tells no digests, nothing but a note tells old bytes from new ones of the same size."""
        note = self._folder / BEGUN
        begun = before.revision if before else note.read_text().strip() if note.is_file() else ""
        if begun != self._listing.revision:
            for file in self._listing.files.values():
                if not (file.sha256 or file.git_sha1):
                    _remove(self._folder / file.name)
        note.write_text(self._listing.revision)

    def _clear_up(self, before: Manifest | None, now: Manifest) -> None:
        """What the folder held of an earlier revision, and the note on this one."""
        for name in set(before.files if before else ()) - set(now.files):
            _remove(self._folder / name)
        (self._folder / BEGUN).unlink(missing_ok=True)

    def _fetch_all(self) -> list[RemoteFile]:
        """First what is small, since it tells which of the large files are needed."""
        names = self._listing.files
        small = self._files(small_files(names, self._wanted.remote_code))
        self._fetch("fetching configuration", small)
        index = (self._folder / INDEX).read_text("utf-8") if INDEX in names else None
        try:
            large = self._files(weight_files(names, index))
        except CheckpointUnavailable as error:
            raise CheckpointUnavailable(f"{self._wanted.source}: {error}") from None
        self._require_space(large)
        self._fetch("fetching", large)
        return [*small, *large]

    def _whole(self, files: Sequence[RemoteFile]) -> dict[str, Digests]:
        """Every file's digests, once they are what the publisher says; a damaged file is fetched anew, once."""
        digests = self._digests(files)
        wrong = self._damaged(files, digests)
        if not wrong:
            return digests
        for file, what in wrong:
            self._say(f"{file.name} {what}; it is fetched anew")
            _remove(self._folder / file.name)
        again = [file for file, _ in wrong]
        self._fetch("fetching anew", again)
        digests |= self._digests(again)
        if still := self._damaged(again, digests):
            raise CheckpointUnavailable(
                f"{self._wanted.source}: {still[0][0].name} {still[0][1]}, for the second time; "
                "its source is damaged, or something on the way changes it"
            )
        return digests

    def _digests(self, files: Sequence[RemoteFile]) -> dict[str, Digests]:
        self._meter.begin("checking", sum((self._folder / file.name).stat().st_size for file in files))

        def read(file: RemoteFile, advance: Advance) -> Digests:
            return digests_of(self._folder / file.name, advance)

        found = side_by_side(read, files, self._meter)
        return {file.name: digests for file, digests in zip(files, found, strict=True)}

    def _damaged(self, files: Iterable[RemoteFile], digests: dict[str, Digests]) -> list[tuple[RemoteFile, str]]:
        found = ((file, _wrong(file, self._folder / file.name, digests[file.name])) for file in files)
        return [(file, what) for file, what in found if what]

    def _fetch(self, phase: str, files: Sequence[RemoteFile]) -> None:
        for file in files:
            self._drop_if_cut_short(file)
        missing = [file for file in files if not (self._folder / file.name).is_file()]
        kept_bytes = sum(self._origin.kept_bytes(self._listing, file, self._folder) for file in missing)
        total_bytes, missing_bytes = _size(files), _size(missing)
        self._meter.begin(phase, total_bytes, total_bytes - missing_bytes + kept_bytes)
        self._moved_bytes += missing_bytes - kept_bytes

        def fetch(file: RemoteFile, advance: Advance) -> None:
            self._origin.fetch(self._listing, file, self._folder, advance)

        side_by_side(fetch, missing, self._meter)

    def _drop_if_cut_short(self, file: RemoteFile) -> None:
        path = self._folder / file.name
        if path.is_file() and path.stat().st_size != file.size_bytes:
            self._say(f"{file.name} has {path.stat().st_size} bytes instead of {file.size_bytes}; it is fetched anew")
            _remove(path)

    def _require_space(self, files: Sequence[RemoteFile]) -> None:
        missing = [file for file in files if not (self._folder / file.name).is_file()]
        kept_bytes = sum(self._origin.kept_bytes(self._listing, file, self._folder) for file in missing)
        needed_bytes, free_bytes = _size(missing) - kept_bytes, shutil.disk_usage(self._folder).free
        if needed_bytes > free_bytes:
            raise CheckpointUnavailable(
                f"too little disk: {self._wanted.model} needs {format_bytes(needed_bytes)} more in {self._folder}, and "
                f"{format_bytes(free_bytes)} are free; free some, or name a larger disk with HF_HOME or --to"
            )

    def _remember(self, manifest: Manifest, changed: Sequence[str]) -> None:
        """The times of files whose bytes have just been read, so that they need not be read again."""
        if changed:
            records = {
                name: record_of(self._folder / name, record.sha256) if name in changed else record
                for name, record in manifest.files.items()
            }
            with contextlib.suppress(OSError):  # a read-only disk is read each time, and is no less whole
                write_manifest(self._folder, replace(manifest, files=records))

    def _told_source(self) -> str:
        source = self._wanted.source
        return str(HubSource(source.hf_id, self._listing.revision) if isinstance(source, HubSource) else source)

    def _files(self, names: Iterable[str]) -> list[RemoteFile]:
        return [self._listing.files[name] for name in names]


def _size(files: Iterable[RemoteFile]) -> int:
    return sum(file.size_bytes for file in files)


def _wrong(file: RemoteFile, path: Path, digests: Digests) -> str:
    """What is wrong with a fetched file, or nothing; of a store that tells no digest only the size is known."""
    if (size_bytes := path.stat().st_size) != file.size_bytes:
        return f"has {size_bytes} bytes instead of {file.size_bytes}"
    if file.sha256 and digests.sha256 != file.sha256:
        return f"is damaged (SHA-256 {digests.sha256[:12]}… instead of {file.sha256[:12]}…)"
    if file.git_sha1 and digests.git_sha1 != file.git_sha1:
        return f"is damaged (git blob {digests.git_sha1[:12]}… instead of {file.git_sha1[:12]}…)"
    return ""


def _remove(path: Path) -> None:
    """The file, and in the hub's cache the blob that its name points to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def damage_by_bytes(folder: Path, manifest: Manifest, names: Iterable[str], meter: Meter) -> tuple[Damage, ...]:
    chosen = sorted(names)
    meter.begin("checking", sum(manifest.files[name].size_bytes for name in chosen))

    def read(name: str, advance: Advance) -> str:
        return digests_of(folder / name, advance).sha256

    found = dict(zip(chosen, side_by_side(read, chosen, meter), strict=True))
    return tuple(
        Damage(name, "holds other bytes than were fetched")
        for name, sha256 in found.items()
        if sha256 != manifest.files[name].sha256
    )


def has_code(manifest: Manifest, wanted: Wanted) -> bool:
    """Whether the publisher's code is there, if it is wanted."""
    return not wanted.remote_code or any(name.endswith(".py") for name in manifest.files)
