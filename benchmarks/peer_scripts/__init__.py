"""One small program for each peer of the sweep, as somebody who knows that library would write it."""
