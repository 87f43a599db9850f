"""What is constant in a model whatever its inputs are, and which units that makes superfluous.

:mod:`planc.constants.known` is what is known of a tensor, :mod:`planc.constants.transfer` what
operators make of it, :mod:`planc.constants.walk` runs a graph on it.
:mod:`planc.constants.products` and :mod:`planc.constants.recurrent` say where operands meet,
:mod:`planc.constants.dead` proves of units that nothing depends on them, and
:mod:`planc.constants.fold` moves constants into biases.
"""
