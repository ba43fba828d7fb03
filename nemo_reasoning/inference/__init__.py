"""Answers from a trained model: engines, and the thinking in what they return."""
