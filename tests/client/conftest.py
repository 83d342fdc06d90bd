"""The fake agent, for tests of the client."""

from tests.fake_agent import agent, attached, overlayd

__all__ = ["agent", "attached", "overlayd"]
