"""File locks that say who runs: a process holds one for its life, and others look whether it is held.

Looking takes the lock for a moment, shared; whoever wants to hold it waits that long.
"""

import fcntl
from pathlib import Path

from driftline.clock import Deadline, sleep

LOOKED_AT_S = 0.2
LOOK_AGAIN_S = 0.01


def hold(lock: int) -> None:
    """Take the lock of an open file; it falls with the process. BlockingIOError if another process holds it."""
    deadline = Deadline(LOOKED_AT_S)
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline.expired():
                raise
            sleep(LOOK_AGAIN_S)


def is_held(path: Path) -> bool:
    """Whether a process holds this lock file. False, too, where nothing ever did: there is no such file."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
