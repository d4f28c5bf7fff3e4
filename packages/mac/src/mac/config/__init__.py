"""What is configured about a model."""
