"""Verbs that make container runtimes use overlayd."""
