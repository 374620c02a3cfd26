"""Scores of predictions: metrics, intervals, paired tests, the objective."""
