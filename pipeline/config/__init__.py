"""The schema of `params.yaml`, the search space of a sweep, and the command line."""
