"""The words that data, training and service share: turns, the thinking switch, and the tags around a trace."""
