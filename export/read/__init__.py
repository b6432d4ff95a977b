"""The models that exports start from, whatever files they lie in."""
