"""How what is freed goes back to the machine (mallopt(3)), and when it is (gc)."""

from __future__ import annotations

import ctypes
import gc

# Of malloc.h.
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Less than the room for a read of each buffer that is loaded (1 MiB).
_LARGE = 1 << 19


def give_back_what_is_freed() -> None:
    """Large pieces at once, and threads that end leave no heap of their own.

    Otherwise glibc, once it has seen a large piece freed, puts the next ones where small ones are,
    and keeps what they leave: some MiB more or less, forever. A libc without it has its own ways.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """What there is now is there for good: the garbage collector need not look at it again.

    When it does, requests would wait for milliseconds; what comes later is little.
    """
    gc.freeze()


def tidy() -> None:
    """Collect garbage, in some 0.1 ms; nothing before settle(), when it would take long.

    There is hardly any. But this alone empties free lists: a tuple made of a generator comes from
    that of one length, and goes to that of another, up to 2000 for each. They took half a MiB.
    """
    if gc.get_freeze_count():
        gc.collect()
