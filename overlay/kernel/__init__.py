"""The only importer of pyroute2: reads the kernel's state and applies operations to it."""
