"""The version of the distribution: written here and nowhere else in Python (package.json repeats it; a test compares)."""

__version__ = "0.1.0"
