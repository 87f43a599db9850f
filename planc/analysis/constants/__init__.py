"""Values of a model that are constant for all inputs, and units made superfluous by them.

:mod:`planc.constants.known` represents partial knowledge of a tensor,
:mod:`planc.constants.transfer` propagates it through operators, and :mod:`planc.constants.walk`
through a graph. :mod:`planc.constants.products` and :mod:`planc.constants.recurrent` locate the
operands multiplied with each other, :mod:`planc.constants.dead` proves units dead, and
:mod:`planc.constants.fold` moves constants into biases.
"""
