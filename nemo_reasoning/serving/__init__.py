"""A service that speaks OpenAI's protocol, and a chat page."""
