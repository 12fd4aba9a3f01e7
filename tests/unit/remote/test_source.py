"""Two machines have the same source when every file that one has is the same on the other."""

from __future__ import annotations

from pathlib import Path

from orchestrator.remote import source


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "orchestrator" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_files_are_compared_by_name_and_content(tmp_path: Path) -> None:
    here = write(tmp_path / "here", a="1", b="2")
    files = source.source_files(here)
    assert files == ["orchestrator/a.py", "orchestrator/b.py"]
    same = write(tmp_path / "same", a="1", b="2", only_there="3")
    assert source.digest(here, files) == source.digest(same, files)
    changed = write(tmp_path / "changed", a="1", b="3")
    swapped = write(tmp_path / "swapped", a="2", b="1")
    missing = write(tmp_path / "missing", a="1")
    assert len({source.digest(each, files) for each in (here, changed, swapped, missing)}) == 4


def test_this_program_knows_its_own_source() -> None:
    files = source.source_files(source.root())
    assert "orchestrator/remote/source.py" in files
    assert "deployments/app.py" in files
    assert source.digest(source.root(), files) is not None
