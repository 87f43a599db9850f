"""Facts of an analysis, under their former name."""

from planc.rules.labels.facts import *  # noqa: F403
