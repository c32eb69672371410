"""Reports for coview: what a run was, what it learned and whether that is any good, on one page."""
