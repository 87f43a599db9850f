"""Blocks: members of lists of modules whose removal equals the identity.

:mod:`planc.analysis.blocks.find` finds the lists and the value that enters and leaves each member,
:mod:`planc.analysis.blocks.zeros` tells if zero weights do the same as a removal, and
:mod:`planc.analysis.blocks.bypass` makes the graph without some of them, and compares runs with it.
"""

from planc.analysis.blocks.bypass import bypassed, run_difference
from planc.analysis.blocks.find import Block, BlockList, block_lists

__all__ = ["Block", "BlockList", "block_lists", "bypassed", "run_difference"]
