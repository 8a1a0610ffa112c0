"""Which models there are, what a launch means, where the files are, and how much memory they take."""
