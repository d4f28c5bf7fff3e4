"""bettong: from a model file to a running, watched pipeline. The server, the engine and the command line."""

__version__ = "0.1.0"
