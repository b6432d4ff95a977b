"""VocabTrim: drafters whose heads have fewer rows."""
