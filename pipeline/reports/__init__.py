"""The report of a sweep, and the model card of a version."""
