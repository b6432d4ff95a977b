"""What drafting costs here, how likely drafts are accepted, and so how much to draft."""
