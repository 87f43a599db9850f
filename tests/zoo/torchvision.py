"""torchvision's models, and inputs for them; the models made fit for comparison, see
:mod:`tests.zoo.randomise`.
"""
