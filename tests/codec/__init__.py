"""Claims of the records in files, beside those of plan files in :mod:`tests.test_codec`."""
