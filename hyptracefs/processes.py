"""What /proc says of the processes that use the mount (proc(5))."""

from __future__ import annotations

import signal
from pathlib import Path

# Those that do not end a process by default.
_HARMLESS = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
}
_FATAL = sum(1 << number - 1 for number in set(range(1, signal.NSIG)) - _HARMLESS)
_EXITING = 0x4  # PF_EXITING, in field 9 of stat
_ENDED = ("X", "Z")
_MASKS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")


def _stat(process: int) -> list[str]:
    """Fields of stat from the third one, the state, on."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def _masks(process: int) -> dict[str, int]:
    """Signals, by _MASKS: bit n - 1 is signal n."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":\t", 1) for line in text.splitlines())
    return {name: int(fields[name], 16) for name in _MASKS}


def cpu_of(process: int) -> int:
    """The CPU that `process` runs on, or ran on last (field 39 of stat).

    0 for a process that we cannot see: it lives in another pid namespace.
    """
    try:
        return int(_stat(process)[39 - 3])
    except OSError:
        return 0


def is_dying(thread: int) -> bool:
    """Whether a signal ends `thread`, rather than being handled.

    To end it, the kernel gives it SIGKILL besides. False for a thread that we cannot see.
    """
    try:
        return bool(_masks(thread)["SigPnd"] & 1 << (signal.SIGKILL - 1))
    except OSError:
        return False


def is_ending(process: int) -> bool:
    """Whether a signal has ended `process`, though it may not have got round to it.

    False for one that is gone, or that we cannot see: it lives in another pid namespace.
    """
    try:
        # In this order: what is no longer pending is exiting.
        masks = _masks(process)
        stat = _stat(process)
    except OSError:
        return False
    spared = masks["SigBlk"] | masks["SigIgn"] | masks["SigCgt"]
    fatal = (masks["SigPnd"] | masks["ShdPnd"]) & ~spared & _FATAL
    return bool(fatal or int(stat[9 - 3]) & _EXITING or stat[0] in _ENDED)
