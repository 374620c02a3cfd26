"""What can be known of labelled pictures before anything is trained: pure functions, nothing is written."""
