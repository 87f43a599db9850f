"""The plan: an immutable value, its fingerprint and the operations on it."""

from planc.plan.plan import Plan

__all__ = ["Plan"]
