"""What pCPUs are given to do: scripts and programs, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

# A CPU that has been switched on gets to the host by the exit "psci".
_TO_HOST = ("eret_host", "psci")


class Step(NamedTuple):
    """One event of a script. hyp_enter and hyp_exit move the CPU."""

    at: int  # ns from the start of the script
    event: str
    # its fields, in their order, text: what a symbol prints as; of hyp_printk the text of the
    # format, or its number, and the arguments
    args: tuple[int | str, ...]

    @property
    def enter(self) -> bool:
        """Whether the CPU gets into the hypervisor."""
        return self.event == "hyp_enter"

    @property
    def exit(self) -> bool:
        """Whether the CPU leaves the hypervisor."""
        return self.event == "hyp_exit"

    @property
    def in_host(self) -> bool:
        """Whether the CPU is in the host afterwards."""
        return self.exit and self.args[0] in _TO_HOST


class Program(NamedTuple):
    """A host that makes up what it does as it goes; the same with the same `seed`."""

    name: Literal["guest", "chaos"]
    vcpus: int
    seed: int


@dataclass(frozen=True)
class Workload:
    """Scripts by pCPU number, and how long one turn takes, in ns; or programs."""

    scripts: dict[int, list[Step]]
    period: int
    programs: dict[int, Program] = field(default_factory=dict)
