"""What is on the disk when a write goes wrong, or the process dies."""
