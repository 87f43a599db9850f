"""How long a pruned model takes, by a table of what its operators took on one machine.

:mod:`planc.latency.table` predicts, :mod:`planc.latency.measure` fills tables in, and
:mod:`planc.codec.latency` keeps them in files.
"""
