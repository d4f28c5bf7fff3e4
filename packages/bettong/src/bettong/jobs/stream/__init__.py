"""The parts of a stream inference."""
