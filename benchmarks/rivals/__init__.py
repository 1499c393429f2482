"""The libraries that the codec is compared with, one file each: the same two documents, in its own models."""
