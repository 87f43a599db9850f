"""Mutants of files in great numbers: refused by name, or harmless."""
