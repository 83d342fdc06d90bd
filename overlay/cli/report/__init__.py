"""The bundle of `overlayd report`: what goes into it, without secrets, bounded in size."""
