"""The commands of ``planc``, one per file. Each calls the library once and prints or writes."""
