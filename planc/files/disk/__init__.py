"""Directories and streams of bytes: atomic replacement, staging and limits."""
