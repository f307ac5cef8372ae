"""A run: settings, stages, results."""
