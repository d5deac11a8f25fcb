"""A run on disk: its paths, how files are replaced atomically, and its metrics."""
