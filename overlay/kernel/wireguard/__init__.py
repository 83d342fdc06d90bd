"""The WireGuard device that carries encrypted networks, in the kernel or by wireguard-go."""
