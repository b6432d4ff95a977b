"""Several generations at once by one target: who has a slot, what a forward reads, who drafts."""
