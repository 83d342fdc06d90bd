"""eBPF programs of the fast path past the bridge (docs/adr/0008)."""
