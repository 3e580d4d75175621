"""Sizes, the descriptor, memory, and the table of operations."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

import pytest

from hypervisor_model import EventInfo, FieldInfo
from hyptracefs.events import Event
from hyptracefs.print_fmt import Number, Op
from hyptracefs.ring_buffer import (
    PAGE_HEADER,
    PAGE_SIZE,
    Geometry,
    Memory,
    RenderTable,
    _meminfo,
    pages_for,
)
from tests.support import raises_errno


@pytest.mark.parametrize(
    ("size_kb", "pages"),
    # SPEC A.4, column ML+
    [(1, 3), (4, 3), (7, 3), (8, 4), (16, 6), (1024, 259), (4096, 1030)],
)
def test_pages_for_a_size_are_those_of_the_reference(size_kb: int, pages: int) -> None:
    assert pages_for(size_kb) == pages


_MOST_KB = (2**32 - 2) * (PAGE_SIZE - PAGE_HEADER) // 1024


def test_pages_up_to_what_32_bits_count_are_accepted() -> None:
    assert pages_for(_MOST_KB) == 2**32 - 1


@pytest.mark.parametrize("size_kb", [_MOST_KB + 4, 2**40, 2**54 - 1])
def test_more_pages_than_32_bits_count_are_too_big(size_kb: int) -> None:
    with raises_errno(errno.E2BIG):
        pages_for(size_kb)


@pytest.mark.parametrize(("cpus", "pages"), [(1, 3), (2, 3), (3, 6), (4, 259), (2, 1030)])
def test_descriptor_is_laid_out_as_specified(cpus: int, pages: int) -> None:
    geometry = Geometry(cpus, pages)
    desc = geometry.descriptor()
    assert len(desc) % PAGE_SIZE == 0

    # SPEC A.2: backing start and size (none), then the container
    assert struct.unpack_from("<QQ", desc) == (0, 0)
    nr_cpus, pad, struct_len = struct.unpack_from("<iIQ", desc, 16)
    assert (nr_cpus, pad, struct_len) == (cpus, 0, 16 + cpus * (16 + 8 * pages))

    addresses: list[int] = []
    at = 32
    for cpu in range(cpus):
        assert struct.unpack_from("<iI", desc, at) == (cpu, pages)
        meta, *page_va = struct.unpack_from(f"<{1 + pages}Q", desc, at + 8)
        assert meta == geometry.meta(cpu)
        assert page_va == [geometry.page(cpu, page) for page in range(pages)]
        addresses += [meta, *page_va]
        at += 16 + 8 * pages
    assert at == 16 + struct_len
    assert not any(desc[at:])
    # every page of the memory is used, and once
    assert sorted(addresses) == list(range(0, geometry.size, PAGE_SIZE))


def test_memory_is_allocated_and_sealed() -> None:
    memory = Memory(4 * PAGE_SIZE)
    try:
        assert os.fstat(memory.fd).st_size == 4 * PAGE_SIZE
        assert os.fstat(memory.fd).st_blocks * 512 >= 4 * PAGE_SIZE
        for size in (0, PAGE_SIZE, 5 * PAGE_SIZE):
            with raises_errno(errno.EPERM):
                os.ftruncate(memory.fd, size)
        seals = fcntl.fcntl(memory.fd, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_SHRINK
        assert seals & fcntl.F_SEAL_GROW
        # so that the hypervisor can still write
        assert not seals & fcntl.F_SEAL_WRITE
    finally:
        memory.close()


def test_memory_is_given_back_on_close() -> None:
    memory = Memory(PAGE_SIZE)
    memory.close()
    with raises_errno(errno.EBADF):
        os.fstat(memory.fd)


@pytest.mark.parametrize("size", [2**46, 2**62, 2**80])
def test_memory_that_the_machine_does_not_have_is_refused(size: int) -> None:
    with raises_errno(errno.ENOMEM):
        Memory(size)


def test_what_the_kernel_does_not_tell_of_its_memory_is_none() -> None:
    assert _meminfo("MemTotal") > 1 << 20
    assert _meminfo("MemTota") == 0


def test_memory_that_the_kernel_refuses_is_enomem_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:  # noqa: ARG001
        raise OSError(errno.ENOSPC, "no space")

    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with raises_errno(errno.ENOMEM):
        Memory(PAGE_SIZE)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def _odd(*ops: Op) -> Event:
    return Event(EventInfo(1, "probe", (), '""'), ops, '""')


def _number(offset: int, size: int, width: int = 0) -> Number:
    return Number(FieldInfo("int", "a", offset, size, signed=True), "hex", width, "")


@pytest.mark.parametrize(
    ("event", "why"),
    [
        pytest.param(
            _odd(_number(2, 3)),
            "a field has not the size, or the place, of a number",
            id="size-of-field",
        ),
        pytest.param(
            _odd(_number(2, 16)),
            "a field has not the size, or the place, of a number",
            id="field-too-large",
        ),
        pytest.param(
            _odd(_number(5000, 4)),
            "a field has not the size, or the place, of a number",
            id="offset-behind-any-payload",
        ),
        pytest.param(_odd("x" * 5000), "its lines could be too long", id="text-too-long"),
        pytest.param(
            _odd(*[_number(2, 4, 255)] * 17),
            "its lines could be too long",
            id="too-many-wide-numbers",
        ),
    ],
)
def test_event_that_cannot_be_rendered_is_shown_raw_and_that_is_said(
    event: Event, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    RenderTable([event])
    assert caplog.messages == [f"event probe: {why}: shown raw"]


def test_table_without_events_can_be() -> None:
    RenderTable([])
