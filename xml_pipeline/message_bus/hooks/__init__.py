"""The pump's own turn hooks, one behaviour per file."""
