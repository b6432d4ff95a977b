"""Text and tokens: chat templates, vocabularies as bytes, ids back to text as they come."""
