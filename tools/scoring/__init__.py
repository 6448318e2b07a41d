"""What tools.score reads: truth and results of any detector."""
