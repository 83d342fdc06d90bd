"""The gate behind which this host translates: whether it has one, and how it is written."""
