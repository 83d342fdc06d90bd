"""Shortcuts: veth pairs between a sandbox and the host, for frames past the VXLAN device."""
