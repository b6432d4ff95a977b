"""Finds how a pair of models runs fastest on this device, by trying what an engineer would."""
