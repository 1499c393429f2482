"""Libraries that this project ships with itself."""
