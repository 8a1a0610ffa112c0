"""The version of the distribution: written here and, compared by a test, in package.json."""

__version__ = "0.1.0"
