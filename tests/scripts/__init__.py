"""Programs for longer proofs, sweeps and reports: ``python -m tests.scripts.NAME``."""
