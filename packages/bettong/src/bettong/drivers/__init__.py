"""Drivers: how each family of data sources is tested, browsed, read and written. See docs/design/connections.md."""
