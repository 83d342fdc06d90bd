"""The steps before a session: Noise, first contacts, cookies, and their limits."""
