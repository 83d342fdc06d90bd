"""Node keys, the authority, certificates, signatures, tokens, the keyring."""
