"""Checks of labelled images before training. The modules return findings; the step writes them."""
