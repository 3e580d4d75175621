# SPDX-License-Identifier: Apache-2.0
"""Make the files of this directory: pages as hexdumps, and the text that they are.

    ringbuf_c/tests/pages/make_pages.py

It knows SPEC A.5, A.6 and E.3 and nothing of the C code. test_pages.c reads the files; run
this only to add one.

A file:  # what it is
         the lines that trace_pipe prints
         page ID lost N      a swap that gives this page, and reports this loss
         the page as `xxd -a -g 4` prints it, without the column of characters
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CAPACITY = 4080
EXTEND_FROM = 1 << 27
LOW_59_BITS = (1 << 59) - 1

HYP_ENTER, HYP_EXIT, HYP_PRINTK, SELFTEST = 6, 7, 8, 11  # as in events.h
SHORT_EVENT = f"[SHORT EVENT id={SELFTEST}"
SHORT_PRINTK = f"[SHORT EVENT id={HYP_PRINTK}"
V1_ENTER, V1_SELFTEST = 16, 17  # packed: fields on any byte, no rounding
EIGHT = [0, 1, 255, 256, 65536, 2**32, 2**63 - 1, 2**64 - 1]
REASONS = ["smc", "hvc", "sys", "psci", "host_abort", "guest_exit", "eret_host", "eret_guest"]


@dataclass
class Item:
    """A piece of a page, and the line that it prints."""

    data: bytes
    text: str | None = None  # of an event
    delta: int = 0


@dataclass
class Page:
    """What a swap gives."""

    id: int
    time: int
    items: Sequence[Item]
    lost: int = 0
    commit: int | None = None
    after: str = ""  # lines that come of what is wrong with it

    def data(self) -> bytes:
        """Give the readable bytes."""
        return b"".join(item.data for item in self.items)

    def image(self) -> bytes:
        """Give all of it."""
        data = self.data()
        commit = len(data) if self.commit is None else self.commit
        return (struct.pack("<QQ", self.time, commit) + data).ljust(4096, b"\0")

    def lines(self) -> str:
        """Give the text."""
        text = f"CPU:0 [LOST {self.lost} EVENTS]\n" if self.lost else ""
        now = self.time
        for item in self.items:
            now = (now + item.delta) % 2**64
            if item.text is not None:
                text += f"[000]\t{now // 10**9:5}.{now // 1000 % 10**6:06}: {item.text}\n"
        return text + self.after


# --- items -------------------------------------------------------------------------


def header(type_len: int, delta: int) -> bytes:
    """Give the word that every item begins with."""
    return struct.pack("<I", type_len | delta << 5)


def wide(type_len: int, value: int) -> bytes:
    """Give a TIME_EXTEND (30) or TIME_STAMP (31)."""
    return header(type_len, value % EXTEND_FROM) + struct.pack("<I", value >> 27)


def long(payload: bytes, text: str, delta: int = 0) -> Item:
    """Give data in long form, led by a TIME_EXTEND where it needs one."""
    extend = b""
    field = delta
    if delta >= EXTEND_FROM:
        extend = wide(30, delta)
        field = 0
    size = struct.pack("<I", len(payload) + 4)
    return Item(extend + header(0, field) + size + payload, text, delta)


def short(payload: bytes, text: str, delta: int = 0) -> Item:
    """Give data in short form."""
    return Item(header(len(payload) // 4, delta) + payload, text, delta)


def enter_payload(event: int, reason: int, vcpu: int) -> tuple[bytes, str]:
    """Give hyp_enter or hyp_exit as our writer lays it out, and its text."""
    name = "hyp_enter" if event == HYP_ENTER else "hyp_exit"
    return struct.pack("<HBxi", event, reason, vcpu), f"{name} reason={REASONS[reason]} vcpu={vcpu}"


def selftest_payload(number: int, size: int = 16) -> tuple[bytes, str]:
    """Give selftest as our writer lays it out, and its text."""
    return struct.pack("<H6xQ", SELFTEST, number).ljust(size, b"\0"), f"selftest id={number}"


def selftest(number: int, delta: int = 0) -> Item:
    """Give selftest in long form."""
    return long(*selftest_payload(number), delta)


def selftests(first: int, last: int) -> list[Item]:
    """Give a page of them, a microsecond apart."""
    return [selftest(i, 0 if i == first else 1000) for i in range(first, last + 1)]


def printk(text: str, fmt: int, *args: int, delta: int = 1000) -> Item:
    """Give hyp_printk: as long as it has arguments, each as a u64."""
    words = [arg % 2**64 for arg in args]
    payload = struct.pack(f"<HH4x{len(words)}Q", HYP_PRINTK, fmt, *words)
    return long(payload, text, delta)


def v1_enter(reason: int, vcpu: int, delta: int = 0) -> Item:
    """Give 15 bytes: packed, not rounded."""
    text = f"v1_enter reason={REASONS[reason]} vcpu={vcpu}"
    return long(struct.pack("<HBi", V1_ENTER, reason, vcpu), text, delta)


def v1_selftest(delta: int = 0) -> Item:
    """Give 10 bytes: no fields."""
    return long(struct.pack("<H", V1_SELFTEST), "v1_selftest", delta)


def raw(data: str) -> Item:
    """Give bytes that are no event."""
    return Item(bytes.fromhex(data))


# --- the files -----------------------------------------------------------------------


GOOD = selftest(1)
NEXT = selftest(2, 1000)


def bad(data: str) -> Page:
    """Give a page with one good event and then something that is none."""
    return Page(1, 1000, [GOOD, raw(data)], after="CPU:0 [CORRUPT PAGE 1 AT 24]\n")


def written_pages() -> dict[str, tuple[str, list[Page]]]:
    """Give what our writer writes."""
    return {
        "mix": (
            "The three events, as the writer lays them out.",
            [
                Page(
                    1,
                    4242123456789,
                    [
                        long(*enter_payload(HYP_ENTER, 1, 0)),
                        selftest(2**64 - 1, 700),
                        long(*enter_payload(HYP_EXIT, 6, -1), 300),
                        long(*enter_payload(HYP_ENTER, 7, -(2**31)), 0),
                    ],
                )
            ],
        ),
        "printk": (
            "Events as long as their arguments; the formats are those of test_pages.c.",
            [
                Page(
                    1,
                    1000,
                    [
                        printk("hyp_printk nothing to say", 0, delta=0),
                        printk(
                            "hyp_printk load of 0xffff800000001000 refused: -1",
                            1,
                            -(2**47) + 4096,
                            -1,
                        ),
                        printk(f"hyp_printk {' '.join(map(str, EIGHT))}", 2, *EIGHT),
                        printk("hyp_printk Unknown hyp_string_fmt ID 3", 3, 0),
                        printk("hyp_printk Unknown hyp_string_fmt ID 65535", 65535),
                    ],
                )
            ],
        ),
        "deltas": (
            "SPEC H.3, fourth row: the largest delta, and a TIME_EXTEND.",
            [Page(1, 5000, [selftest(1), selftest(2, 134217727), selftest(3, 134217729)])],
        ),
        "time-extend": (
            "Pauses of 2^27 ns, of an hour, of 2^58 ns.",
            [
                Page(
                    1,
                    17000001999,
                    [
                        selftest(1),
                        selftest(2, EXTEND_FROM),
                        selftest(3, 3600 * 10**9),
                        selftest(4, 2**58),
                    ],
                )
            ],
        ),
        "clock-backwards": (
            "From 1000 ns to 600 ns: the TIME_EXTEND keeps 59 bits of the difference.",
            [Page(1, 1000, [selftest(1), selftest(2, -400 & LOW_59_BITS)])],
        ),
        "empty": ("A swap before the first event.", [Page(1, 0, [])]),
        "full-page-of-one": (
            "One event with the largest payload, 4072 bytes.",
            [Page(1, 1000, [long(*selftest_payload(1, 4072))])],
        ),
        "overrun": (
            "SPEC H.3, first row: 816 events into 3 pages; 170 fill a page to the byte.",
            [
                Page(2, 511000, selftests(511, 680), lost=510),
                Page(1, 681000, selftests(681, 816)),
            ],
        ),
        "tail-on-reader-page": (
            "SPEC H.3, second row: 5 events, a swap, 394 more.",
            [
                Page(1, 1000, selftests(1, 170)),
                Page(2, 171000, selftests(171, 340)),
                Page(0, 341000, selftests(341, 399)),
            ],
        ),
    }


def foreign_pages() -> dict[str, tuple[str, list[Page]]]:
    """Give what other producers write."""
    payloads = {size: f"{SHORT_EVENT} length={size}]" for size in (4, 8, 12)}
    short_items = [
        short(
            selftest_payload(i, 4 * i)[0][: 4 * i],
            payloads.get(4 * i, selftest_payload(i)[1]),
            i,
        )
        for i in range(1, 29)
    ]
    v1_mix = [
        v1_enter(1, 5),
        v1_selftest(1000),
        v1_enter(2, -5, 2 * EXTEND_FROM),
        v1_enter(7, 2**31 - 1),
    ]
    return {
        "short-form": ("type_len 1 to 28.", [Page(3, 1000, short_items)]),
        "v1-packed": (
            "SPEC H.3, third row: the first readable page, 408 events of 10 bytes.",
            [Page(1, 3673000, [v1_selftest(1000 * (i > 0)) for i in range(408)], lost=3672)],
        ),
        "odd-offsets": ("Events at 0, 15, 25 (TIME_EXTEND), 48.", [Page(1, 999999999, v1_mix)]),
        "time-stamp": (
            "TIME_STAMP: absolute; the five upper bits are those of the page.",
            [
                Page(
                    1,
                    (1 << 59) + 1000,
                    [
                        selftest(1),
                        Item(wide(31, 5 * 10**9), delta=5 * 10**9 - 1000),
                        selftest(2, 1000),
                        Item(wide(31, 10**9), delta=-4 * 10**9 - 1000),
                        selftest(3),
                    ],
                )
            ],
        ),
        "padding": (
            "12 bytes with a length, 8 with the smallest; then the rest of the page.",
            [
                Page(
                    1,
                    1000,
                    [
                        GOOD,
                        raw("3d000000 08000000 ffffffff"),
                        NEXT,
                        raw("fdffffff 04000000"),
                        selftest(3, 1000),
                        raw("1d000000 deadbeef 00000000 14000000"),
                    ],
                )
            ],
        ),
        "nothing-but-time": (
            "No event: two TIME_EXTENDs.",
            [Page(1, 5, [raw("1e000000 01000000 1e000000 01000000")])],
        ),
        "unknown-id": (
            "Ids that no event has.",
            [
                Page(
                    1,
                    1000,
                    [
                        long(struct.pack("<HxxI", 0, 1), "UNKNOWN id=0"),
                        long(struct.pack("<HxxI", 5, 1), "UNKNOWN id=5", 1000),
                        long(struct.pack("<H", 65535), "UNKNOWN id=65535", 1000),
                    ],
                )
            ],
        ),
        "short-event": (
            "Payloads that do not hold the fields of their events.",
            [
                Page(
                    1,
                    1000,
                    [
                        long(struct.pack("<H", SELFTEST), f"{SHORT_EVENT} length=2]"),
                        long(selftest_payload(1)[0][:15], f"{SHORT_EVENT} length=15]", 1000),
                        long(selftest_payload(1)[0], "selftest id=1", 1000),
                    ],
                )
            ],
        ),
        "printk-short": (
            "Fewer arguments than the format has; half an index; more arguments.",
            [
                Page(
                    1,
                    1000,
                    [
                        printk(f"{SHORT_PRINTK} length=8]", 1, delta=0),
                        printk(f"{SHORT_PRINTK} length=16]", 1, 4096),
                        long(
                            struct.pack("<HHQI", HYP_PRINTK, 1, 0, 0), f"{SHORT_PRINTK} length=16]"
                        ),
                        long(struct.pack("<HB", HYP_PRINTK, 0), f"{SHORT_PRINTK} length=3]"),
                        long(struct.pack("<HH", HYP_PRINTK, 0), "hyp_printk nothing to say"),
                        printk("hyp_printk nothing to say", 0, 1, 2, 3),
                    ],
                )
            ],
        ),
    }


def bad_pages() -> dict[str, tuple[str, list[Page]]]:
    """Give what nobody should write."""
    corrupt = {
        "length-0": ("An event whose length is 0.", "00000000 00000000"),
        "length-3": ("A length that does not count itself.", "00000000 03000000"),
        "no-payload": ("A length of 4: not even an id.", "00000000 04000000"),
        "past-the-page": ("A length of 4096.", "00000000 00100000"),
        "past-the-commit": ("A length that ends a byte behind the commit.", "00000000 1d000000"),
        "length-wraps": ("A length of 2^32 - 4.", "00000000 fcffffff"),
        "padding-length-0": ("Padding whose length is 0.", "3d000000 00000000"),
    }
    behind = GOOD.data.hex()
    after = Page(2, 9000, [selftest(9)])
    pages = {name: (what, [bad(data + behind), after]) for name, (what, data) in corrupt.items()}
    pages |= {
        "half-a-header": ("Three bytes are left.", [bad("000000"), after]),
        "short-form-past-the-commit": (
            "type_len 28 with 4 bytes of payload.",
            [bad("1c000000 03000000"), after],
        ),
        "broken-behind-time-extend": (
            "The offset is that behind the last event: the TIME_EXTEND is not one.",
            [bad("3e000000 01000000 00000000 03000000"), after],
        ),
        "padding-hides-the-rest": (
            "Padding to the end, in mid-page: nothing behind it, and nothing is said.",
            [Page(1, 1000, [GOOD, raw("1d000000 14000000" + behind)]), after],
        ),
        "reader-id-out-of-range": (
            "A page that there is not: the swap has failed.",
            [Page(9, 1000, [GOOD])],
        ),
    }
    commits = {"4081": 4081, "with-flags": 1 << 31 | 24, "2-to-the-32": (1 << 32) + 24}
    for name, commit in commits.items():
        page = Page(1, 1000, [raw(behind)], 0, commit, "CPU:0 [CORRUPT PAGE 1 AT 0]\n")
        pages[f"commit-{name}"] = (
            f"A commit of {commit}: more than a page, and no image.",
            [page, after],
        )
    return pages


# --- writing them -----------------------------------------------------------------------


def hexdump(image: bytes) -> str:
    """Give the page as `xxd -a -g 4` does: the last line is always there."""
    text = ""
    zeros = 0
    for offset in range(0, len(image), 16):
        line = image[offset : offset + 16]
        zeros = zeros + 1 if not any(line) and offset + 16 < len(image) else 0
        if zeros == 2:  # noqa: PLR2004
            text += "*\n"
        if zeros < 2:  # noqa: PLR2004
            text += f"{offset:08x}: {line.hex(' ', 4)}\n"
    return text


def main() -> None:
    """Write all files."""
    for name, (what, pages) in (written_pages() | foreign_pages() | bad_pages()).items():
        text = f"# SPDX-License-Identifier: Apache-2.0\n# {what}\n"
        text += "".join(page.lines() for page in pages if page.id < 4)  # noqa: PLR2004
        for page in pages:
            text += f"page {page.id} lost {page.lost}\n{hexdump(page.image())}"
        Path(__file__).with_name(name).with_suffix(".page").write_text(text)


if __name__ == "__main__":
    main()
