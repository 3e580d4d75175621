"""The layout of a trace.dat: see trace-cmd.dat.v6(5), trace-cmd.dat.v7(5)."""

from __future__ import annotations

import struct

MAGIC = b"\x17\x08\x44tracing"
LITTLE_ENDIAN = 0
LONG_SIZE = 8
V6, V7 = b"6", b"7"

HEADER_PAGE = b"header_page\0"
HEADER_EVENT = b"header_event\0"
OPTIONS = b"options  \0"
FLYRECORD = b"flyrecord\0"
LATENCY = b"latency  \0"
TAG_SIZE = 10  # of the three above

# Options; in version 7, those that say where sections are.
DONE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, CPUCOUNT, VERSION = 0, 2, 3, 4, 5, 8, 9
HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS = 16, 17, 18
PRINTK, CMDLINES = 20, 21

SECTION = struct.Struct("<HHIQ")
COMPRESSED = 1  # flag of a section
CHUNK = struct.Struct("<II")  # compressed, uncompressed bytes
EXTENT = struct.Struct("<QQ")
