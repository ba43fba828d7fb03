"""Print the table of docs/memory.md."""

from nemo_reasoning.training.memory.survey import survey_table

if __name__ == "__main__":
    print(survey_table())
