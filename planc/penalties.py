"""Penalties, under their public name."""

from planc.criteria.penalties import *  # noqa: F403
