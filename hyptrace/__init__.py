"""Tools for people who trace a hypervisor: the command `hyptrace`.

They use a mount of hyptracefs, or what has been recorded from one, as any tool would; none
of them serves it, so none imports pyfuse3 or trio.
"""
