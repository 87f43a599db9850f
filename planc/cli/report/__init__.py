"""Reports for people: plans and their differences in, terminal tables and plain data out."""
