"""Which cells there are, which are finished, and which is the best."""
