"""Several all-in-one processes on the same ports, and the parent that keeps them running."""
