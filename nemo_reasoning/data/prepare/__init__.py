"""From files of rows, here or on a hub, to tokenised, filtered and ordered splits on disk."""
