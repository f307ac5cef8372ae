"""What methods share: the loop over rounds, the guide student, generators in training, synthesis in memory."""
