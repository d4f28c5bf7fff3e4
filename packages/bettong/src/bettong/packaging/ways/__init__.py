"""One module per framework or family: how its models come as files, and what they need. See `packaging.frameworks`."""
