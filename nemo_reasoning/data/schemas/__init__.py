"""Rows of public data sets, in any layout in use, as dialogues to train on."""
