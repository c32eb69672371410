"""A recipe built: five components joined by the hooks of one run."""
