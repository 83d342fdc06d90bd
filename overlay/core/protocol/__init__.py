"""Messages, records and settings of the gossip protocol."""
