"""What a pair of models has learned of its user: where it lies, when it is saved."""
