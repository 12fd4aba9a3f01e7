"""One download of a folder at a time, on one machine or on several that share a disk."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = ".pull.lock"
# Lustre without `flock`, and some network disks.
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(folder: Path, waiting: Callable[[str], None], say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder for the length of the block; `waiting` hears for whom, if somebody else has it.

    The kernel lets go when the holder ends, however it ends; Linux passes the lock on to the server of an NFS disk.
    Where a disk knows no locks the block runs all the same, and `say` hears of it: then two downloads at once cost
    bandwidth, and every file is checked before the folder counts as whole.
    """
    import fcntl  # not on Windows, where no engine runs

    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            waiting(f"waiting for {file.read(200).strip() or 'another process'}, which is fetching it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            say(f"the disk of {folder} knows no locks: of two downloads at once, both fetch everything")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
