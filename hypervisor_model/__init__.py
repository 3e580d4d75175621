"""A model of the nVHE hypervisor: pCPUs that write events, hypercalls to get at them.

A world of its own: it knows nothing of the mount, and the host reaches it through
hypercalls and shared pages only.
"""

from hypervisor_model.model import (
    EventInfo,
    FieldInfo,
    Format,
    FormatTable,
    Hypervisor,
    RemoteTest,
    SymbolTable,
)
from hypervisor_model.script import Program, Step, Workload
from hypervisor_model.workloads import MIXES, WORKLOADS, load_workload

__all__ = [
    "MIXES",
    "WORKLOADS",
    "EventInfo",
    "FieldInfo",
    "Format",
    "FormatTable",
    "Hypervisor",
    "Program",
    "RemoteTest",
    "Step",
    "SymbolTable",
    "Workload",
    "load_workload",
]
