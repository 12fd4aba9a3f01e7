"""What stands for `orchestrator` on a head in tests: it tells what it was asked, and does what the last word says.

exit-N ends with that code; wait runs until it is interrupted, and then undoes for a while, writing all the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    files = {word: Path(word).read_text() for word in words if Path(word).is_file()}
    seen = {name: value for name, value in os.environ.items() if name.startswith("ORCHESTRATOR_SEEN")}
    told = {"words": words, "files": files, "seen": seen, "ray": os.environ["RAY_DASHBOARD_URL"]}
    print(json.dumps(told))
    print("one line of progress …", file=sys.stderr)
    if words[-1] == "wait":
        return _wait(Path.home() / "wait")
    return int(words[-1].removeprefix("exit-")) if words[-1].startswith("exit-") else 0


def _wait(trace: Path) -> int:
    trace.write_text(f"{os.getpid()}\n")
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        for _ in range(30):
            print("undoing …" + "." * 10_000, file=sys.stderr)
            time.sleep(0.1)
        trace.write_text("undone\n")
        print("error: interrupted; it is as it was before", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
