"""What the platform remembers: the stores of `domain.ports` on SQLite and PostgreSQL. Start at `stores.open_stores`."""
