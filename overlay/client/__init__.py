"""The API's client, shared by everything outside the agent."""
