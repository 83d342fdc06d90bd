"""Verbs of networks: their definitions, settings, containers and addresses."""
