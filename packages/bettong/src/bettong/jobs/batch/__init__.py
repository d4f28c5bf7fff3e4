"""The parts of a batch inference."""
