"""What /proc says of those who use the mount."""

from __future__ import annotations

import os
import signal
import subprocess

from hyptracefs.processes import cpu_of, is_dying, is_ending
from tests.mounts import until

_NOBODY = 1 << 22 | 1  # over the most that pid_max can be


def test_a_process_that_we_cannot_see_runs_on_cpu_0_and_is_not_ended() -> None:
    assert cpu_of(_NOBODY) == 0
    assert not is_dying(_NOBODY)
    assert not is_ending(_NOBODY)


def test_a_process_that_lives_is_seen() -> None:
    assert cpu_of(os.getpid()) < (os.cpu_count() or 1)
    assert not is_dying(os.getpid())
    assert not is_ending(os.getpid())


def test_a_process_that_was_killed_and_not_waited_for_is_ending() -> None:
    process = subprocess.Popen(["sleep", "1000"])
    process.send_signal(signal.SIGKILL)
    until(lambda: is_ending(process.pid), "it to be seen")
    process.wait()
