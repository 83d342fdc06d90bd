"""What a declared state has of one host: exposures, published ports and plugs; DNS records."""
