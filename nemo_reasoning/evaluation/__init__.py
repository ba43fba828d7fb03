"""How well a model answers: runs, scores, and the report of a training run."""
