"""What is freed goes back to the machine."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hyptracefs.memory import give_back_what_is_freed

# How many of two large pieces are mapped for themselves, the second one after the first was freed.
_MAPPED = """
import ctypes
from hyptracefs.memory import give_back_what_is_freed
if {change}:
    give_back_what_is_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]
libc.mallinfo2.restype = Info
def mapped():
    before = libc.mallinfo2().hblks
    piece = libc.malloc(1 << 20)
    number = libc.mallinfo2().hblks - before
    libc.free(piece)
    return number
print(mapped(), mapped())
"""


def _mapped(*, change: bool) -> str:
    command = [sys.executable, "-c", _MAPPED.format(change=change)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_large_pieces_are_given_back_also_after_the_first() -> None:
    assert _mapped(change=False) == "1 0"  # or it would not be needed
    assert _mapped(change=True) == "1 1"


# Blocks that Python keeps for later, of many tuples of generators; and what is left of them.
_FREE_LISTS = """
import gc, sys
from hyptracefs.memory import settle, tidy
tidy()
assert gc.get_stats()[2]["collections"] == 0, "there would be a lot to go through"
settle()
before = sys.getallocatedblocks()
for _ in range(3000):
    tuple(number for number in range(3))
kept = sys.getallocatedblocks() - before
tidy()
print(kept, sys.getallocatedblocks() - before)
"""


def test_free_lists_are_emptied() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FREE_LISTS], check=True, capture_output=True, text=True
    )
    kept, left = map(int, done.stdout.split())
    assert left < 200, f"of {kept}"


def test_a_libc_without_such_a_choice_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    give_back_what_is_freed()
