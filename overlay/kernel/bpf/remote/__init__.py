"""Sending to remote containers past the VXLAN device: programs and maps."""
