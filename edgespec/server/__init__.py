"""HTTP over a session, as OpenAI's interface: `edgespec.serve` and `edgespec serve`."""
