"""Node keys, the authority, certificates, signatures, tokens, keyring."""
