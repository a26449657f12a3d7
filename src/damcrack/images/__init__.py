"""Image files: reading photos of every kind, and image sets (tar shards with an index)."""
