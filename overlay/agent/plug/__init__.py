"""This host's plugs: interfaces that are ports of networks, and what is behind them."""
