"""``coview new``: a plugin package to start from."""
