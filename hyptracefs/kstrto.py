"""Numbers as the kernel parses them from what is written into a file (SPEC E)."""

from __future__ import annotations

import errno
import re

_NUMBER = re.compile(rb"\+?([0-9]+)(.*)", re.DOTALL)
_COPIED = 66  # the kernel looks at no more bytes of an unsigned long than these
_U64_MAX = 2**64 - 1
_U8_MAX = 255


def kstrtoull(data: bytes) -> int:
    """One decimal number: optional `+`, digits, at most one newline; a NUL ends it.

    Raises OSError: EINVAL for anything else, ERANGE over 64 bits (before it looks at what
    follows the digits, as the kernel does).
    """
    text = data[:_COPIED].split(b"\0", 1)[0]
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else 0
    if number > _U64_MAX:
        raise OSError(errno.ERANGE, f"{number} does not fit 64 bits")
    if match is None or match[2] not in (b"", b"\n"):
        raise OSError(errno.EINVAL, f"{text[:20]!r} is not a decimal number")
    return number


def kstrtou8(data: bytes) -> int:
    """As kstrtoull(), 0 to 255."""
    number = kstrtoull(data)
    if number > _U8_MAX:
        raise OSError(errno.ERANGE, f"{number} is over {_U8_MAX}")
    return number


def parse_switch(data: bytes) -> bool:
    """What V1 accepts in an event's `enable`: one or two bytes, the first `0` or `1`.

    Raises OSError: EINVAL for anything else.
    """
    if len(data) not in (1, 2) or data[:1] not in (b"0", b"1"):
        raise OSError(errno.EINVAL, f"{data[:20]!r} is not 0 or 1")
    return data[:1] == b"1"
