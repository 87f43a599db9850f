"""Each refusal of verification by itself; whole faults are in :mod:`tests.verify.test_verify`."""
