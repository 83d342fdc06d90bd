"""The API client, shared by everything outside of the agent."""
