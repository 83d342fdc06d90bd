"""The member with policies that the tests of `agent.policy` use."""

from __future__ import annotations

from tests.agent.policy.conftest import bench

__all__ = ["bench"]
