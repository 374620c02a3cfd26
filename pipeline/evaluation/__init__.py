"""What predictions are worth: metrics, intervals, paired tests, the objective."""
