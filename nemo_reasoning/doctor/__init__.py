"""Judge a machine by what a training needs; loads neither NeMo nor, without a GPU, torch."""
