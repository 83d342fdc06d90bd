"""Services in the kernel: virtual addresses translated to their backends."""
