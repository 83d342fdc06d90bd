"""The CNI plugin: a program that container runtimes start, and a client of the agent."""
