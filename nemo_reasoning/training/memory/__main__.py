"""Print the table of docs/memory.md."""

from nemo_reasoning.training.memory.tables import fits_table

if __name__ == "__main__":
    print(fits_table())
