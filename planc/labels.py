"""The label algebra, under its former name."""

from planc.rules.labels import *  # noqa: F403
