"""How far a long piece of work is: on stderr, when that is a terminal, after two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

AFTER_S = 2.0


class Progress(Protocol):
    """Told how much is done."""

    def at(self, done: int) -> None:
        """So much is done, in the unit of the total."""


class _Bar:
    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = total, label
        self._since = time.monotonic()
        self._done = 0
        self._bar: Any = None

    def at(self, done: int) -> None:
        if self._bar is None:
            if time.monotonic() - self._since < AFTER_S:
                return
            self._bar = click.progressbar(length=self._total, label=self._label, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done

    def end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)


class _Silent:
    def at(self, done: int) -> None:
        pass


@contextmanager
def progress(total: int, label: str) -> Iterator[Progress]:
    """A bar of `total`; none if nobody sees it."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    bar = _Bar(total, label)
    try:
        yield bar
    finally:
        bar.end()
