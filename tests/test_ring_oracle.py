"""The C ring and the oracle, driven alike by hypothesis: all that shows is the same.

RINGBUF_C names the ringbuf_c tree to test; HYPOTHESIS_PROFILE=long tries much more.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.decoder import HEADER_SIZE, records
from tests.ring_oracle import EXTEND_BITS, EXTEND_FROM, MAX_PAYLOAD, PAGE_SIZE, Oracle, Page

_OURS = Path(__file__).parents[1] / "ringbuf_c"
_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_UNTOUCHED = 0xA5  # what the host's pages are full of before they are loaded

# trace_buffer_meta, and what is behind it in the page
_META = {
    "meta_page_size": "I",
    "meta_struct_len": "I",
    "subbuf_size": "I",
    "nr_subbufs": "I",
    "lost_events": "Q",
    "reader_id": "I",
    "reader_read": "I",
    "flags": "Q",
    "entries": "Q",
    "overrun": "Q",
    "read": "Q",
    "pages_lost": "Q",
    "pages_touched": "Q",
    "dropped": "Q",
}
_META_LAYOUT = struct.Struct("<" + "".join(_META.values()))


# --- the C ring -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    tree = Path(os.environ.get("RINGBUF_C", _OURS))
    made = tmp_path_factory.mktemp("ring") / "ring_shim.so"
    sources = (_OURS / "tests" / "ring_shim.c", tree / "src" / "ring.c")
    compiler = os.environ.get("CC", "cc")
    options = ("-std=gnu11", "-O1", "-fPIC", "-shared", *_WARNINGS, f"-I{tree / 'include'}")
    subprocess.run([compiler, *options, *sources, "-o", made], check=True)

    loaded = ctypes.CDLL(str(made))
    loaded.shim_setup.argtypes = [ctypes.c_bool]
    loaded.shim_setup.restype = ctypes.POINTER(ctypes.c_ubyte)
    loaded.shim_enable.argtypes = [ctypes.c_bool]
    loaded.shim_reserve.argtypes = [ctypes.c_uint32, ctypes.c_uint64]
    loaded.shim_reserve.restype = ctypes.c_int64
    for name in ("shim_knows_pages", "shim_knows_meta"):
        getattr(loaded, name).restype = ctypes.c_bool
    for name in ("shim_commit", "shim_unload"):
        getattr(loaded, name).restype = None
    return loaded


def _memory(library: ctypes.CDLL, membarrier: bool) -> memoryview:
    """The meta page, then the others; of a ring that was never loaded."""
    size = library.shim_memory_size()
    address = ctypes.cast(library.shim_setup(membarrier), ctypes.c_void_p).value
    assert address
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


# --- what is tried ----------------------------------------------------------------------------

_LENGTHS = st.one_of(
    st.sampled_from([0, 1, 7, 8, 9, 16, 100, 1344, 2024, 2032]),
    st.integers(0, MAX_PAYLOAD),
    st.integers(MAX_PAYLOAD - 9, MAX_PAYLOAD + 9),
    st.sampled_from([1 << 16, (1 << 31) - 1, 1 << 31, *range((1 << 32) - 17, 1 << 32)]),
)
_STEPS = st.one_of(
    st.sampled_from([0, 1, 1000]),
    st.integers(EXTEND_FROM - 2, EXTEND_FROM + 2),
    st.integers(0, 1 << 40),
    st.integers(-(1 << 40), 0),
    st.integers(0, (1 << 64) - 1),
)


class _Machine(RuleBasedStateMachine):
    """Each rule does the same to both."""

    def __init__(self, library: ctypes.CDLL, membarrier: bool) -> None:
        super().__init__()
        self.ring = library
        self.memory = _memory(library, membarrier)
        self.oracle = Oracle()
        self.time = 0
        self.serial = 0
        self.decoded: dict[int, bytes] = {}  # pages, as they were when they were last decoded
        self._take_back_memory()

    def _take_back_memory(self) -> None:
        """The host has its memory for itself; the next init() finds the meta page cleared."""
        self.memory[:PAGE_SIZE] = bytes(PAGE_SIZE)
        self.memory[PAGE_SIZE:] = bytes([_UNTOUCHED]) * (len(self.memory) - PAGE_SIZE)

    def _page(self, number: int) -> memoryview:
        return self.memory[(number + 1) * PAGE_SIZE : (number + 2) * PAGE_SIZE]

    def _reserve(self, length: int, step: int) -> None:
        self.time = (self.time + step) % (1 << 64)
        self.serial += 1
        opened = self.oracle.open
        place = self.oracle.reserve(length, self.time, struct.pack("<Q", self.serial))
        at = self.ring.shim_reserve(length, self.time)
        if place is None or self.oracle.open is None:
            assert at == -1
            assert self.oracle.open is opened
            return
        page, offset = place
        assert at == (page + 1) * PAGE_SIZE + HEADER_SIZE + offset
        self.memory[at : at + len(self.oracle.open.payload)] = self.oracle.open.payload

    def _commit(self) -> None:
        if self.oracle.open:
            self.oracle.commit()
            self.ring.shim_commit()

    # --- the rules

    @initialize(nr_pages=st.integers(3, 6), time=st.sampled_from([0, 1, EXTEND_FROM, 1 << 63]))
    def begin(self, nr_pages: int, time: int) -> None:
        self.time = time
        self.init(nr_pages)
        self.enable(on=True)

    @rule(nr_pages=st.integers(0, 6))
    def init(self, nr_pages: int) -> None:
        assert self.ring.shim_init(nr_pages) == self.oracle.init(nr_pages)

    @rule(on=st.sampled_from([True, True, False]))
    def enable(self, on: bool) -> None:
        assert self.ring.shim_enable(on) == self.oracle.enable(on)

    @rule(before=st.integers(0, 2), behind=st.integers(0, 3))
    def reset_among_swaps(self, before: int, behind: int) -> None:
        self.swap(before)
        assert self.ring.shim_reset() == self.oracle.reset()
        self.same_meta_page()
        self.swap(behind)

    @rule(times=st.integers(1, 3))
    def swap(self, times: int) -> None:
        """The host need not have anything to read."""
        for _ in range(times):
            assert self.ring.shim_swap() == self.oracle.swap()

    @rule(again=st.sampled_from([False, False, True]))
    def unload(self, again: bool) -> None:
        self.ring.shim_unload()
        self.oracle.unload()
        self._take_back_memory()
        if again:
            self.begin(3, self.time)

    @rule(length=_LENGTHS, step=_STEPS)
    def reserve(self, length: int, step: int) -> None:
        self._reserve(length, step)

    @rule()
    def commit(self) -> None:
        self._commit()

    @rule(length=_LENGTHS, step=_STEPS)
    def write(self, length: int, step: int) -> None:
        self._reserve(length, step)
        self._commit()

    @rule(length=_LENGTHS, step=_STEPS, times=st.integers(1, 20))
    def write_many(self, length: int, step: int, times: int) -> None:
        for _ in range(times):
            self.write(length, step)

    @rule(length=st.sampled_from([1344, 2032, MAX_PAYLOAD]), times=st.integers(6, 20))
    def write_round_the_ring(self, length: int, times: int) -> None:
        self.write_many(length, 1000, times)

    @precondition(lambda self: self.oracle.pages)
    @rule(step=_STEPS, beyond=st.sampled_from([-16, -8, -7, -1, 0, 0, 1, 8]))
    def write_to_the_end(self, step: int, beyond: int) -> None:
        """As much as fits the page without a TIME_EXTEND, or a little less or more."""
        self.write(max(0, self.oracle.room() - 8 + beyond), step)

    # --- what shows

    @invariant()
    def same_state(self) -> None:
        loaded = len(self.oracle.pages)
        assert self.ring.shim_status() == self.oracle.status
        assert self.ring.shim_nr_pages() == loaded
        assert self.ring.shim_knows_pages() == self.ring.shim_knows_meta() == bool(loaded)

    @invariant()
    def same_meta_page(self) -> None:
        meta = dict(zip(_META, _META_LAYOUT.unpack_from(self.memory), strict=True))
        assert meta == dict.fromkeys(_META, 0) | self.oracle.meta()
        assert not any(self.memory[_META_LAYOUT.size : PAGE_SIZE])

    @invariant()
    def same_pages(self) -> None:
        for number, page in enumerate(self.oracle.pages):
            self._check_page(number, page)

    @invariant()
    def other_pages_untouched(self) -> None:
        behind = self.memory[PAGE_SIZE * (1 + len(self.oracle.pages)) :]
        assert behind == bytes([_UNTOUCHED]) * len(behind)

    def _check_page(self, number: int, page: Page) -> None:
        data = page.data()
        image = bytes(self._page(number)[: HEADER_SIZE + len(data)])
        time, commit = struct.unpack_from("<QQ", image)
        assert commit == len(data)
        assert page.time in {None, time}
        assert image[HEADER_SIZE:] == data
        if self.decoded.get(number) != image:
            self.decoded[number] = image
            self._check_decoded(time, page, data)

    def _check_decoded(self, time: int, page: Page, data: bytes) -> None:
        decoded = list(records(data, time))
        assert [record.payload for record in decoded] == [event.payload for event in page.events]
        for record, event in zip(decoded, page.events, strict=True):
            # All that a clock that goes backwards leaves of its time.
            assert (record.time - event.time) % (1 << EXTEND_BITS) == 0


@pytest.mark.parametrize("ordering", ["membarrier", "cmpxchg"])
def test_ring_does_what_the_oracle_says(library: ctypes.CDLL, ordering: str) -> None:
    class Machine(_Machine):
        def __init__(self) -> None:
            super().__init__(library, membarrier=ordering == "membarrier")

    how = settings(
        max_examples=2 * settings().max_examples,
        stateful_step_count=60,
        phases=(Phase.generate, Phase.shrink),
    )
    run_state_machine_as_test(Machine, settings=how)


# --- the oracle itself, against the vectors of SPEC H.3 ---------------------------------------


def _filled(nr_pages: int) -> Oracle:
    oracle = Oracle()
    assert oracle.init(nr_pages) == oracle.enable(on=True) == 0
    return oracle


def _write(oracle: Oracle, serials: Iterable[int]) -> None:
    for serial in serials:
        assert oracle.reserve(16, serial * 1000, struct.pack("<Q", serial))
        oracle.commit()


def _take(oracle: Oracle) -> tuple[int, int, list[int]]:
    """Page id, events lost and the serials that the next page of the reader holds."""
    oracle.swap()
    events = oracle.pages[oracle.reader].events
    serials = [int.from_bytes(event.payload[:8], "little") for event in events]
    return oracle.reader, oracle.lost_events, serials


def test_oracle_without_a_reader() -> None:
    oracle = _filled(3)
    _write(oracle, range(1, 817))
    assert oracle.meta().items() >= {"entries": 816, "overrun": 510, "pages_lost": 3}.items()
    assert oracle.pages_touched == 4
    assert _take(oracle) == (2, 510, [*range(511, 681)])
    assert _take(oracle) == (1, 0, [*range(681, 817)])


def test_oracle_with_a_reader_page_that_is_the_tail() -> None:
    oracle = _filled(3)
    _write(oracle, range(1, 6))
    assert _take(oracle) == (1, 0, [*range(1, 6)])
    _write(oracle, range(6, 400))
    assert len(oracle.pages[1].events) == 170
    assert _take(oracle) == (2, 0, [*range(171, 341)])
    assert _take(oracle) == (0, 0, [*range(341, 400)])
    assert oracle.overrun == 0


def test_oracle_extends_time() -> None:
    oracle = _filled(3)
    places = []
    for time in (5, 5 + EXTEND_FROM - 1, 5 + 2 * EXTEND_FROM):
        places.append(oracle.reserve(16, time, bytes(8)))
        oracle.commit()
    assert places == [(1, 8), (1, 32), (1, 64)]
    assert len(oracle.pages[1].data()) == 80
