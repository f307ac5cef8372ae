"""Shared parts of the methods: the loop over rounds, the guide student, training of generators, synthesis in memory."""
