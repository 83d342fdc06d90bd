"""The fake agent, for tests of the command line."""

from tests.fake_agent import agent, attached, overlayd

__all__ = ["agent", "attached", "overlayd"]
