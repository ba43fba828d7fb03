"""Rounds in which a model learns from answers of its own that were verified."""
