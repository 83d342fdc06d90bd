"""A sandbox of its own, for tests of passes over real kernels."""

from tests.kernel.conftest import _capable, world

__all__ = ["_capable", "world"]
