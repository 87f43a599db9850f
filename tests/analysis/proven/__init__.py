"""Models that are hard to prune, each aimed at one difficulty: tests prove the removals allowed by
the analysis, and claim what they are.
"""
