"""Numbers as the kernel parses them from what is written into a file (SPEC E)."""

from __future__ import annotations

import errno
import re

_NUMBER = re.compile(rb"\+?[0-9]+\n?")
_COPIED = 66  # the kernel looks at no more bytes of an unsigned long than these
_ULONG_MAX = 2**64 - 1
_U8_MAX = 255


def kstrtoull(data: bytes, maximum: int = _ULONG_MAX) -> int:
    """One decimal number: optional `+`, digits, at most one newline; a NUL ends it.

    Raises OSError: EINVAL for anything else, ERANGE above `maximum`.
    """
    text = data[:_COPIED].split(b"\0", 1)[0]
    if not _NUMBER.fullmatch(text):
        raise OSError(errno.EINVAL, f"{text[:20]!r} is not a decimal number")
    number = int(text)
    if number > maximum:
        raise OSError(errno.ERANGE, f"{number} is over {maximum}")
    return number


def kstrtou8(data: bytes) -> int:
    """As kstrtoull(), 0 to 255."""
    return kstrtoull(data, _U8_MAX)


def parse_switch(data: bytes) -> bool:
    """What V1 accepts in an event's `enable`: one or two bytes, the first `0` or `1`.

    Raises OSError: EINVAL for anything else.
    """
    if len(data) not in (1, 2) or data[:1] not in (b"0", b"1"):
        raise OSError(errno.EINVAL, f"{data[:20]!r} is not 0 or 1")
    return data[:1] == b"1"
