"""A built recipe: five components connected by the hooks of one run."""
