"""The loop, a round, verification, sampling: what must be believed that the output is lossless."""
