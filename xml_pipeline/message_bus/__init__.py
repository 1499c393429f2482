"""The engine: from bytes to handlers and back."""
