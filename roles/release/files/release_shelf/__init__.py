"""Where the program release-shelf gets sources from, one concern a file. The standard library and git alone."""
