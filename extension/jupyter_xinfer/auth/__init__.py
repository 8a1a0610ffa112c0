"""Who is calling, and may they do it."""
