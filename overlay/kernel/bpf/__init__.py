"""The fast path: eBPF programs that let unicast frames bypass the bridge (docs/adr/0008)."""
