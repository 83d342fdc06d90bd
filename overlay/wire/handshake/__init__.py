"""What precedes a session: Noise, first contacts, cookies, and their limits."""
