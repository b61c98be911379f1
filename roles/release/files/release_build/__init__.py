"""What the program release-build consists of, one concern a file. Standard library alone, Python 3.11 to 3.13."""
