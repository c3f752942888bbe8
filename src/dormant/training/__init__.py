"""Training, thin over TRL: the only importers of trl."""
