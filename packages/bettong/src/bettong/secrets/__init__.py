"""Keys and what they protect: the ring that seals connection details, the signer of access tokens."""
