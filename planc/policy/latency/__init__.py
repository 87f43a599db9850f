"""Latency of a pruned model, predicted from a table of its operators' times on one machine.

:mod:`planc.latency.table` predicts, :mod:`planc.latency.measure` makes tables, and
:mod:`planc.codec.latency` stores them in files.
"""
