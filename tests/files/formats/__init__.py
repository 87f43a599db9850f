"""Claims of the records in files, beside those of plan files in :mod:`tests.files.formats.test_codec`."""
