"""Results of a run on disk: samples, checkpoints and metrics."""
