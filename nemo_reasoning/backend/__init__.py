"""Run NeMo where CUDA, Transformer Engine or both are absent: two independent switches."""
