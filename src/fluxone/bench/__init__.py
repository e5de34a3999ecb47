"""How fast, how small, how true: contestants that take turns, with the machine's ceilings measured in the same run."""
