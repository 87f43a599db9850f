"""Plans in the words of people: figures, rows of like groups, constraints, one summary.

Plans flow in; texts and rows flow out, without a layout. Pure data and NumPy.
"""
