"""The sweep: which cells there are, which comes next, where it runs, and how they compare."""
