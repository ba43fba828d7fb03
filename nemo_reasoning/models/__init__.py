"""Base models: where they come from, and their import into NeMo's checkpoint format."""
