"""What can be known of labelled images before anything is trained: pure functions, nothing is written."""
