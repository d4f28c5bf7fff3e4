"""Uploaded files, kept once under their SHA-256. Start at `store.open_artifacts`."""
