"""Latency of a pruned model, predicted from a table of its operators' times on one machine.

:mod:`planc.plan.latency` predicts, :mod:`planc.policy.latency.measure` makes tables, and
:mod:`planc.files.formats.latency` stores them in files.
"""
