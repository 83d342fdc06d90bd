"""The command line: verbs, tables, JSON. A client of the agent's UNIX socket."""
