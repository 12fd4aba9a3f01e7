"""The operator's side: a home with an SSH key and Ray's token, from which `ray up` is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster.host import MARK, ROOT, UNSHARE, sh

_SCRIPT = Path(__file__).with_name("laptop.sh")


class Laptop:
    """Runs commands of the environment under test as somebody would whose home is `folder`/home.

    Each command has processes and a /tmp of its own: Ray's launcher leaves SSH connections and the clusters' state
    there, and a cluster of the same name that this machine knows must not be mixed up with a test's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        for path in (self.home / ".ssh", folder / "tmp"):
            path.mkdir(parents=True)
        self.key = self.home / ".ssh/id_ed25519"
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", MARK, "-f", str(self.key))
        bin_folder = Path(sys.executable).parent
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{bin_folder}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text()

    @property
    def token(self) -> str:
        return (self.home / ".ray/auth_token").read_text().strip()

    def make_token(self) -> None:
        """As the cluster files say."""
        done = self.run("bash", "-c", "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
        assert done.returncode == 0, done.stderr

    def run(self, *command: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """In the project's folder; stdout and stderr as one. Raises `TimeoutExpired`, having ended everything."""
        visible = dict.fromkeys(str(path) for path in (ROOT, self.folder, sys.prefix, sys.base_prefix))
        own = (*UNSHARE, "--pid", "--mount", "--mount-proc")
        return subprocess.run(
            [*own, "bash", str(_SCRIPT), str(self.folder), *visible, "--", *command],
            cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
