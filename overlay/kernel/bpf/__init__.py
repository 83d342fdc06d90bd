"""The fast path: eBPF programs that spare unicast frames the bridge (docs/adr/0008)."""
