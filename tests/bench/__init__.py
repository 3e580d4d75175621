"""The whole way, from an event to its reader, measured: see scripts/bench."""
