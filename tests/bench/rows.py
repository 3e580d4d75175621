"""What a benchmark says: figures, each beside a peer's of the same run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure, beside a peer's of the same run."""

    bench: str
    case: str
    unit: str
    ours: float
    goal: str = ""
    peer: str = ""
    theirs: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.theirs else None

    def json(self) -> str:
        ratio = None if self.ratio is None else round(self.ratio, 3)
        return json.dumps({**asdict(self), "ratio": ratio})

    def table(self) -> str:
        theirs = "" if self.theirs is None else f"{self.theirs:.4g} ({self.peer})"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        about = f"{self.bench}, {self.case}: {self.unit}"
        return f"| {about} | {self.ours:.4g} | {theirs} | {ratio} | {self.goal} |"


@dataclass(frozen=True)
class Effort:
    """How long to look."""

    times: int
    size_kb: int
    seconds: float
    step: float  # of ladders


SHORT = Effort(times=3, size_kb=16 << 10, seconds=2, step=2)
LONG = Effort(times=9, size_kb=64 << 10, seconds=10, step=1.25)
