"""docs/full-run.md from the reports of `scripts/test --full`: what only that run shows, when it ran, and how long.

python -m scripts.full_table REPORT.xml …   (of a test in several reports, the last one counts)
"""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

OUTPUT = Path(__file__).parents[1] / "docs/full-run.md"
_HEAD = """\
# The long run

What `scripts/test` leaves to `scripts/test --full`, as that run last saw it: {date}, {cores} cores, {gib:.0f} GiB of \
memory, no GPU. Written by `python -m scripts.full_table`; seconds include the set-up that a test is the first to \
need. A test that was mended and run again stands with its last outcome.

| test | outcome | seconds | shown |
|---|---|---:|---|
"""


@dataclass(frozen=True)
class Case:
    """One test of a report."""

    file: str
    name: str
    outcome: str
    seconds: float
    shown: str = ""

    @property
    def row(self) -> str:
        # pytest writes what is not ASCII in a parameter as an escape.
        rule = self.name.encode("ascii", "backslashreplace").decode("unicode_escape")
        rule = rule.removeprefix("test_").replace("_", " ")
        return f"| `{self.file}` {rule} | {self.outcome} | {self.seconds:.0f} | {self.shown} |"


def cases(report: Path) -> Iterator[Case]:
    """The tests of a JUnit report that pytest wrote here."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own file
        outcomes = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        file = case.attrib["classname"].replace(".", "/") + ".py"
        shown = [each.attrib["value"] for each in case.iter("property") if each.attrib["name"] == "shown"]
        outcome = outcomes[0] if outcomes else "passed"
        yield Case(file, case.attrib["name"], outcome, float(case.attrib["time"]), "; ".join(shown))


def table(found: Sequence[Case], now: datetime) -> str:
    """The page."""
    memory_gib = psutil.virtual_memory().total / 1024**3
    head = _HEAD.format(date=f"{now:%d %B %Y}", cores=os.cpu_count(), gib=memory_gib)
    return head + "".join(f"{case.row}\n" for case in found)


def main(reports: Sequence[str]) -> None:
    found = list({(case.file, case.name): case for report in reports for case in cases(Path(report))}.values())
    OUTPUT.write_text(table(found, datetime.now(timezone.utc)), encoding="utf-8")
    failed = [case for case in found if case.outcome in ("failure", "error")]
    print(f"{len(found)} tests, {len(failed)} failed: {OUTPUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
