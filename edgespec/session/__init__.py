"""Opens models, speaks text with them, keeps the turns of a conversation."""
