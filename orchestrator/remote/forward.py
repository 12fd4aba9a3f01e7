"""A command for a cluster elsewhere: run on its head, with the way in to its front kept open here.

$ORCHESTRATOR_HOME/clusters/NAME-DIGEST/        0700, one for each head
    known_hosts                                 its host key
    api-key                                     0600, a copy of the key that its front takes
    tunnel.json, tunnel.log                     the tunnel to its front
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ClusterUnavailable
from orchestrator.remote import seen, ssh, which
from orchestrator.remote.cluster_file import Head
from orchestrator.remote.line import FarFront, Line, open_line
from orchestrator.remote.messages import Word
from orchestrator.remote.tunnel import Tunnels
from orchestrator.store.home import subfolder, write_private

_FOLDER = "clusters"


@dataclass(frozen=True)
class WayIn:
    """What a client here needs: a `base_url`, and the file with the API key."""

    base_url: str
    api_key_path: Path


@dataclass(frozen=True)
class Streams:
    """Where a command's output goes, and a line of this program's own."""

    out: Callable[[bytes], object]
    err: Callable[[bytes], object]
    say: Callable[[str], object]


class Remote:
    """A cluster elsewhere, with what is kept here about it."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._folder = subfolder(_FOLDER) / head.folder_name
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._tunnels = Tunnels(head, self._folder, f"{_FOLDER}/{head.folder_name}/tunnel")
        self._key_path = self._folder / "api-key"

    def deploy(
        self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams, address: tuple[str, int]
    ) -> int:
        """Run `deploy` there for a front at `address`; its exit code. Refused where the head has another source."""
        with open_line(self.head, self._known_hosts) as line:
            if not self._meet(line):
                raise ClusterUnavailable(ssh.other_version(self.head, "another version"))
            return self._run_with_way_in(line, words, environment, streams, address)

    def ask(self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams) -> int:
        """Run another command there; its exit code. Where a front runs, the output speaks of the way in from here."""
        with open_line(self.head, self._known_hosts) as line:
            if not self._meet(line):
                streams.say(f"warning: {ssh.other_version(self.head, 'another version')}")
            return self._run_with_way_in(line, words, environment, streams, None)

    def down(self, words: Sequence[Word], environment: Mapping[str, str], streams: Streams) -> int:
        """Run `down` there, close the tunnel and forget the cluster; its exit code.

        A cluster that cannot be reached any more is forgotten all the same; the error says so.
        """
        try:
            with open_line(self.head, self._known_hosts) as line:
                self._meet(line)
                code = line.run(words, environment, streams.out, streams.err)
        except ClusterUnavailable as error:
            self._forget()
            raise ClusterUnavailable(f"{error}; it is forgotten here, and nothing was stopped there") from None
        if code == 0:
            self._forget()
        return code

    def way_in(self) -> WayIn:
        """The way in to the front there; raises `ClusterUnavailable` when none runs."""
        with open_line(self.head, self._known_hosts) as line:
            self._meet(line)
            front = line.front()
        if front.address is None:
            raise ClusterUnavailable(
                f"no front runs on {self.head.login}, so nothing is served; start with: orchestrator deploy MODEL"
            )
        tunnel, _ = self._tunnels.ensure(front.address)
        self._keep_key(front)
        return WayIn(tunnel.base_url, self._key_path)

    @property
    def _known_hosts(self) -> Path:
        return self._folder / "known_hosts"

    def _meet(self, line: Line) -> bool:
        """Whether the source there is this one. A head that answers is the cluster used last, whatever comes of it."""
        same = line.meet()
        which.remember(self.head.file)
        return same

    def _run_with_way_in(
        self,
        line: Line,
        words: Sequence[Word],
        environment: Mapping[str, str],
        streams: Streams,
        wanted: tuple[str, int] | None,
    ) -> int:
        """Run a command while a tunnel leads to the front that runs, or to where one is `wanted`."""
        before = line.front()
        address = before.address or wanted
        if address is None:
            return line.run(words, environment, streams.out, streams.err)
        tunnel, _ = self._tunnels.ensure(address)
        spoken_of = seen.environment(tunnel.base_url, str(self._key_path))
        after: FarFront | None = None
        try:
            code = line.run(words, {**environment, **spoken_of}, streams.out, streams.err)
            after = line.front()
        finally:
            if (after or before).address is None:  # nothing came of it
                self._tunnels.end()
        self._keep_key(after)
        return code

    def _keep_key(self, front: FarFront) -> None:
        if front.api_key is not None:
            write_private(self._key_path, front.api_key + "\n")

    def _forget(self) -> None:
        self._tunnels.end()
        self._key_path.unlink(missing_ok=True)
        which.forget(self.head.file)
