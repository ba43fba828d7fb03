"""Predict what a run needs of a GPU's memory, and choose what fits; loads neither torch nor NeMo.

`python -m nemo_reasoning.training.memory` prints what fits where, as docs/memory.md shows it.
"""
