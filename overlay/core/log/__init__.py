"""Logs of signed segments: writing the own one, storing everybody's."""
