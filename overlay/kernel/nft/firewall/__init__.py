"""The host's own firewall, compared with the VXLAN packets that the native path would take."""
