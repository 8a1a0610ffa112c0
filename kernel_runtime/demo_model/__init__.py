"""Scripts that make the embedded demo model `xinfer-demo`. They are run from the repository and are not packaged."""
