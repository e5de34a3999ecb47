"""Weight files: their headers, their names, and the way between a file and a network."""
