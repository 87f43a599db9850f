"""Mutation testing of the modules that files and proofs rest on (R16): small faults put into the
code, one at a time, and the tests that run the faulty line; a fault that no test notices survives.

``python -m tests.mutation --minutes 20`` tries as many as fit and prints the score.
"""
