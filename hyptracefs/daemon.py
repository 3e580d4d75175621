"""Into the background, once the mount is ready.

The parent starts the server as a process of its own and waits for its word on a pipe,
so that its exit status tells whether there is a mount. (python-daemon and the like
detach, but have the parent leave before anything is known.)
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_SYSLOG = Path("/dev/log")
_READY = b"\n"

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_at_end_signals() -> None:
    """As at ^C, until an event loop listens for them: so that no mount stays behind."""
    for number in END_SIGNALS:
        signal.signal(number, signal.default_int_handler)


def start(arguments: Sequence[str]) -> int:
    """Run `python -m hyptracefs` with `arguments`; its exit status, 0 once it is ready."""
    unwind_at_end_signals()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as ready:
        server = subprocess.Popen(
            [sys.executable, "-m", "hyptracefs", f"--ready-fd={writing}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[writing],
            start_new_session=True,
            cwd="/",
        )
        os.close(writing)
        try:
            if ready.read(1) == _READY:
                server.returncode = 0  # it goes on without us; or Python would warn
                return 0
        except KeyboardInterrupt:
            server.terminate()
            if server.wait() <= 0:
                raise  # else it has said what became of it
    return server.wait() or 1


def systemd_notifier() -> Callable[[str], None]:
    """Tells the service manager that has started us something (sd_notify(3)); or does nothing.

    Once only: those that we start are not to speak for us.
    """
    address = os.environ.pop("NOTIFY_SOCKET", "")

    def tell(state: str) -> None:
        if not address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.connect("\0" + address[1:] if address.startswith("@") else address)
                manager.send(state.encode())
        except OSError as error:
            logging.warning("systemd: %s: %s", address, error.strerror)

    return tell


def log_handler(log_file: str | None) -> logging.Handler:
    """Where messages go in the background: the file, else syslog if there is one.

    Raises OSError.
    """
    if log_file is not None:
        return logging.FileHandler(log_file)
    if _SYSLOG.exists():
        return logging.handlers.SysLogHandler(str(_SYSLOG))
    return logging.NullHandler()


# As syslog(3) numbers them.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def _stderr_is_journal() -> bool:
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    stderr = os.fstat(sys.stderr.fileno())
    return stream == f"{stderr.st_dev}:{stderr.st_ino}"


def for_stderr(text: str, level: int) -> str:
    """`text` with its level in front of each line, if the journal reads it (sd-daemon(3))."""
    if not _stderr_is_journal():
        return text
    return "\n".join(f"<{_PRIORITIES[level]}>{line}" for line in text.split("\n"))


class _StderrFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return for_stderr(super().format(record), record.levelno)


def set_up_log(level: int, handler: logging.Handler) -> None:
    """All messages of `level` and above to `handler`."""
    to_stderr = isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    formatter = _StderrFormatter if to_stderr else logging.Formatter
    handler.setFormatter(formatter("hyptracefs[%(process)d]: %(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def tell_ready(ready_fd: int) -> None:
    """To the parent: mounted. From now on nobody reads our stderr.

    One that was killed while it waited has told nobody that there is a mount: then we end, too.
    """
    try:
        os.write(ready_fd, _READY)
    except BrokenPipeError:
        logging.warning("who asked for the mount has been killed")
        signal.raise_signal(signal.SIGTERM)
    os.close(ready_fd)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stderr.fileno())
    os.close(null)
