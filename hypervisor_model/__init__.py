"""A model of the nVHE hypervisor: pCPUs that write events, hypercalls to get at them.

A world of its own: it knows nothing of the mount, and the host reaches it through
hypercalls and shared pages only.
"""

from hypervisor_model.model import EventInfo, FieldInfo, Hypervisor, SymbolTable
from hypervisor_model.workloads import WORKLOADS, Step, Workload, load_workload

__all__ = [
    "WORKLOADS",
    "EventInfo",
    "FieldInfo",
    "Hypervisor",
    "Step",
    "SymbolTable",
    "Workload",
    "load_workload",
]
