"""The one tree of exceptions. Each message names the object, what disagrees and what to do.

A message may hold text of a file or a model: characters that cannot be seen are shown escaped.
"""

from __future__ import annotations

from planc.errors.text import escaped

_LAYOUT = "\n\t"  # what messages of several lines need


class PlancWarning(UserWarning):
    """A request that is obeyed, but can hardly be meant: a floor above the size of every group."""

    def __str__(self) -> str:
        return escaped(super().__str__(), _LAYOUT)


class PlancError(Exception):
    """Base of every error that planc raises on purpose."""

    def __str__(self) -> str:
        return escaped(super().__str__(), _LAYOUT)


class TraceError(PlancError):
    """The model could not be traced with the given example inputs."""


class AnalysisError(PlancError):
    """The graph could not be analysed (an operator without a rule under ``strict=True``, ...)."""


class PolicyError(PlancError, ValueError):
    """A request that no plan can meet: a ratio out of range, a pattern that matches nothing."""


class InfeasibleBudget(PolicyError):
    """No plan reaches the budget; the message names the closest reachable figure."""


class CalibrationError(PlancError, ValueError):
    """The model could not be calibrated with the given batches and loss."""


class FileError(PlancError):
    """A file is not what it should be. ``OSError`` passes through unchanged."""


class NotAPlancFile(FileError):
    """The file does not begin as a planc file does."""


class UnsupportedVersion(FileError):
    """The file was written by a planc with another format version or feature."""


class TruncatedFile(FileError):
    """The file ends before its header says it does."""


class TrailingData(FileError):
    """The file goes on after its header says it ends."""


class CorruptFile(FileError):
    """The digest in the file does not match its content."""


class MalformedFile(FileError):
    """The content is not a valid canonical record."""


class LimitExceeded(FileError):
    """The content is larger than the reader's limits allow."""


class UnsafePath(FileError):
    """The path is not a plain file inside the directory where it must be."""


class StaleError(PlancError):
    """The plan and the object it is applied to do not belong together."""


class StalePlan(StaleError):
    """The plan was made for another structure; the first difference is named."""


class AlreadyApplied(StaleError):
    """The object already has the structure that the plan produces."""


class ShardMismatch(StaleError):
    """Shards of one checkpoint do not belong together."""


class SizeMismatch(StaleError, ValueError):
    """A rewritten graph is given inputs of sizes that it was not traced for and cannot follow."""


class VerificationError(PlancError):
    """The result is not what the plan promises; the first difference is named."""
