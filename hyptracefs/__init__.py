"""The trace buffers of a hypervisor as a tracefs, in user space."""
