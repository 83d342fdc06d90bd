"""The command line: verbs, tables and JSON output. A client of the agent's API."""
