"""The tests, and the scripts that measure: ``python -m tests.sweep`` and those in ``bench``."""
