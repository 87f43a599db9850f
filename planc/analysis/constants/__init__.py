"""Values of a model that are constant for all inputs, and units made superfluous by them.

:mod:`planc.analysis.constants.known` represents partial knowledge of a tensor,
:mod:`planc.analysis.constants.transfer` propagates it through operators, and
:mod:`planc.analysis.constants.walk` through a graph. :mod:`planc.analysis.constants.products` and
:mod:`planc.analysis.constants.recurrent` locate the operands multiplied with each other,
:mod:`planc.criteria.dead` proves units dead, and :mod:`planc.compile.fold` moves constants into
biases.
"""
