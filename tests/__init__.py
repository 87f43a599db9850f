"""Tests by room; longer proofs in ``scripts``, measurements in ``bench``."""
