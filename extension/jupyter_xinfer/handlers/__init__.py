"""HTTP handlers, one module per family of routes; thin: they decode, ask the service, encode."""
