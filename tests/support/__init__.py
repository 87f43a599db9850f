"""Models, proofs and faults that several tests use."""
