"""Which models there are and where they lie: manifests of pairs, the Hugging Face hub."""
