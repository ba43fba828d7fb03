"""Rows of chats: where they come from, how they are formatted, tokenised, stored and batched."""
