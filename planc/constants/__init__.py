"""What is constant in a model whatever its inputs are, and which units that makes superfluous.

:mod:`planc.constants.known` says what operators make of constants, :mod:`planc.constants.walk` runs
a graph on them, :mod:`planc.constants.dead` proves of units that nothing depends on them.
"""
