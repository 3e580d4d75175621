"""The texts that control files show, and what they do with the numbers that they are given."""

from __future__ import annotations

import errno

from hyptracefs.event_files import event_names
from hyptracefs.events import print_event_format
from hyptracefs.files import Place
from hyptracefs.kstrto import kstrtou8, kstrtoull, parse_switch
from hyptracefs.ring_buffer import PAGE_HEADER, PAGE_SIZE


def show_tracing_on(place: Place) -> str:
    return f"{place.remote.tracing_on:d}\n"


async def store_tracing_on(place: Place, data: bytes) -> None:
    if kstrtoull(data):
        await place.remote.start_tracing()
    else:
        await place.remote.stop_tracing()


def show_buffer_size_kb(place: Place) -> str:
    state = "loaded" if place.remote.loaded else "unloaded"
    return f"{place.remote.size_kb} ({state})\n"


async def store_buffer_size_kb(place: Place, data: bytes) -> None:
    await place.remote.set_size(kstrtoull(data))


def show_total_size_kb(place: Place) -> str:
    return f"{place.remote.size_kb * place.remote.cpus}\n"


def show_cpu_size_kb(place: Place) -> str:
    return f"{place.remote.size_kb}\n"


def show_page_size_kb(place: Place) -> str:
    return f"{PAGE_SIZE // 1024}\n"


_NO_TRACER = "nop"


def show_current_tracer(place: Place) -> str:
    return f"{_NO_TRACER}\n"


async def store_current_tracer(place: Place, data: bytes) -> None:
    if data.strip() != _NO_TRACER.encode():
        raise OSError(errno.EINVAL, f"current_tracer: there is none but {_NO_TRACER}")


def show_available_tracers(place: Place) -> str:
    return f"{_NO_TRACER}\n"


def show_nothing(place: Place) -> str:
    """For what tools want to be there, and of which a hypervisor has none."""
    return ""


def show_trace_clock(place: Place) -> str:
    return "[boot]\n"


def show_event_enable(place: Place) -> str:
    return f"{place.remote.event_enabled(place.the_event):d}\n"


async def store_event_enable(place: Place, data: bytes) -> None:
    place.remote.enable_event(place.the_event, bool(kstrtou8(data)))


async def store_event_switch(place: Place, data: bytes) -> None:
    """As V1 parses it."""
    place.remote.enable_event(place.the_event, parse_switch(data))


def show_event_id(place: Place) -> str:
    return f"{place.the_event.id}\n"


def show_event_format(place: Place) -> str:
    return place.the_event.format()


def show_portable_format(place: Place) -> str:
    return place.the_event.portable_format()


def show_print_format(place: Place) -> str:
    return print_event_format({event.id for event in place.remote.events})


def show_available_events(place: Place) -> str:
    return event_names(place.remote, place.remote.events)


def show_events_enable(place: Place) -> str:
    states = {place.remote.event_enabled(event) for event in place.remote.events}
    if len(states) > 1:
        return "X\n"
    return f"{True in states:d}\n"


async def store_events_enable(place: Place, data: bytes) -> None:
    """Tries every event; then raises the first error."""
    place.remote.enable_events(place.remote.events, bool(kstrtou8(data)))


def show_header_page(place: Place) -> str:
    rows = (
        ("u64 timestamp", 0, 8, 0),
        ("local_t commit", 8, 8, 1),
        ("char overwrite", 8, 1, 0),
        ("char data", PAGE_HEADER, PAGE_SIZE - PAGE_HEADER, 0),
    )
    return "".join(
        f"\tfield: {field};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"
        for field, offset, size, signed in rows
    )


def show_header_event(place: Place) -> str:
    return (
        "# compressed entry header\n"
        "\ttype_len    :    5 bits\n"
        "\ttime_delta  :   27 bits\n"
        "\tarray       :   32 bits\n"
        "\n"
        "\tpadding     : type == 29\n"
        "\ttime_extend : type == 30\n"
        "\ttime_stamp : type == 31\n"
        "\tdata max type_len  == 28\n"
    )
