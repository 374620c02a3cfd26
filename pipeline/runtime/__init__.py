"""Errors, console output, logging, hardware and atomic files: what every package needs."""
