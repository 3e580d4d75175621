"""The mount: its remotes, the tree, and the FUSE session, from start to end."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import trio

from hypervisor_model import RemoteTest
from hyptracefs.daemon import END_SIGNALS, unwind_at_end_signals
from hyptracefs.events import compile_events
from hyptracefs.fuse import Owner, TraceOperations
from hyptracefs.fuse_hook import FuseHook, pumping, pyfuse3
from hyptracefs.hypercalls import Hypercalls, Traits
from hyptracefs.memory import give_back_what_is_freed, settle
from hyptracefs.mounts import MountError, check_mountpoint, reserved
from hyptracefs.options import Options
from hyptracefs.own_mount import OwnMount
from hyptracefs.remote import Remote, Settings
from hyptracefs.sources import Hypervisors, Source
from hyptracefs.tree import Tree, views_of
from hyptracefs.wakeup import Alarm

log = logging.getLogger(__name__)

# pyfuse3 stops reading requests when this many are being answered, and each blocked
# reader is one.
_MAX_TASKS = 1_000_000


@dataclass(frozen=True)
class MountRequest:
    """What to mount, where, and how."""

    source: Source
    name: str  # of the source
    mountpoint: str  # absolute
    options: Options


def _fuse_options(request: MountRequest) -> set[str]:
    ours = {*pyfuse3.default_options, "subtype=hyptracefs"}
    if not any(option.startswith("fsname=") for option in request.options.fuse):
        ours.add(f"fsname={request.name}")
    return ours | request.options.fuse


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(*END_SIGNALS) as signals:
        async for number in signals:
            log.info("%s: ending", signal.Signals(number).name)
            scope.cancel()


async def _end_when_gone(mount: OwnMount, scope: trio.CancelScope) -> None:
    log.info("mount: %s: ending", await mount.wait_gone(FuseHook.session_fd()))
    scope.cancel()


async def _serve_session(remotes: Sequence[Remote], mount: OwnMount) -> None:
    """Answer requests until the mount ends, or a signal ends it."""
    sources = [remote.source.address for remote in remotes]
    with pumping(sources):
        await _serve_requests(remotes, mount)


async def _serve_requests(remotes: Iterable[Remote], mount: OwnMount) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, nursery.cancel_scope)
        nursery.start_soon(_end_when_gone, mount, nursery.cancel_scope)
        for remote in remotes:
            await nursery.start(remote.run)
        await pyfuse3.main(max_tasks=_MAX_TASKS)
        nursery.cancel_scope.cancel()


def _mount(operations: TraceOperations, request: MountRequest) -> OwnMount:
    with reserved(request.mountpoint):
        check_mountpoint(request.mountpoint)
        try:
            pyfuse3.init(operations, request.mountpoint, _fuse_options(request))
        except RuntimeError as error:
            # libfuse has written why to stderr.
            raise MountError(f"{request.mountpoint}: cannot be mounted: {error}") from None
        try:
            return OwnMount(request.mountpoint)
        except BaseException:
            pyfuse3.close(unmount=True)
            raise


def _settings(options: Options) -> Settings:
    return replace(options.remote, sleep=Alarm().sleep)


def _remote_of(hypervisors: Hypervisors, options: Options) -> Remote:
    """The remote of the hypervisor that we are attached to."""
    first = hypervisors.current.introduction
    return Remote(
        first.hello.name,
        hypervisors.calls(),
        compile_events(first.events, first.symbol_tables, first.format_tables),
        _settings(options),
        hypervisors.attach_next,
    )


def _test_remote(test: RemoteTest, options: Options) -> Remote:
    calls = Hypercalls(test.conduit, test.cpus, traits=Traits(doorbell=test.has_doorbell))
    events = compile_events(test.events, ())
    return Remote("test", calls, events, _settings(options))


def _owner(options: Options) -> Owner:
    uid = os.getuid() if options.uid is None else options.uid
    return Owner(uid, os.getgid() if options.gid is None else options.gid)


def serve(request: MountRequest, ready: Callable[[], None]) -> None:
    """Mount, call `ready`, and serve until the mount ends. Raises MountError, OSError."""
    unwind_at_end_signals()
    give_back_what_is_freed()
    options = request.options
    with closing(Hypervisors(request.source)) as hypervisors, RemoteTest(hypervisors.cpus) as test:
        remotes = (_remote_of(hypervisors, options), _test_remote(test, options))
        tree = Tree(views_of(*remotes), options.mode)
        operations = TraceOperations(tree, FuseHook(), ready, _owner(options))
        mount = _mount(operations, request)
        try:
            FuseHook.check()
            settle()
            trio.run(_serve_session, remotes, mount)
        finally:
            pyfuse3.close(unmount=mount.is_there())
            mount.detach()
        log.info("ended")
