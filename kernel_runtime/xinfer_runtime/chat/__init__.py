"""Chat templates and the parsers of what models write: engine-neutral."""
