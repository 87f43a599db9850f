"""The tests, and the scripts that measure: ``python -m tests.scripts.sweep`` and those in ``bench``."""
