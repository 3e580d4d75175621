"""Which mount of hyptracefs a subcommand is about."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click

from hyptracefs.mount_table import FS_TYPE, Mount, mount_at, mounts

mount_option = click.option(
    "--mount",
    "mount",
    metavar="DIR",
    help="The mount of hyptracefs to use; needed if there are several.",
)


def _the_only_one() -> str:
    # Where one is bound to as well is the same mount: by device, the first place.
    places: dict[str, str] = {}
    for mount in mounts():
        if mount.fs_type == FS_TYPE:
            places.setdefault(mount.device, mount.mountpoint)
    if not places:
        raise click.ClickException(
            "no hyptracefs is mounted here: mount one, with: hyptracefs model /mnt/hyp"
        )
    if len(places) > 1:
        there_are = ", ".join(places.values())
        raise click.UsageError(f"several hyptracefs are mounted: {there_are}: say --mount DIR")
    [place] = places.values()
    return place


def named_mount(directory: str) -> Mount:
    """The mount at `directory`, also a dead one. Raises ClickException if it is none of ours."""
    mount = mount_at(os.path.realpath(directory))
    if mount is None or mount.fs_type != FS_TYPE:
        raise click.ClickException(f"{directory} is no mount of hyptracefs")
    return mount


_REMEDIES = {
    errno.ENOTCONN: "a dead mount: remove it, with: umount -l {}",
    errno.ECONNABORTED: "a dead mount: remove it, with: umount -l {}",
    errno.EACCES: f"mounted by another user: mount it with -o allow_other,uid={os.getuid()}",
}


def find_mount(directory: str | None) -> Path:
    """The mount at `directory`, or the only one that there is; one that answers."""
    where = _the_only_one() if directory is None else named_mount(directory).mountpoint
    try:
        os.scandir(where).close()
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, str(error.strerror)).format(where)
        raise click.ClickException(f"{where}: {remedy}") from None
    return Path(where)
