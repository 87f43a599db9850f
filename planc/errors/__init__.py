"""The tree of exceptions. Each message names the object, the disagreement and the next step.

A message may hold text of a file or a model: invisible characters are shown escaped.
"""

from __future__ import annotations

from planc.errors.text import escaped

_LAYOUT = "\n\t"  # needed by messages of several lines


class PlancWarning(UserWarning):
    """A likely mistake in a request, obeyed nevertheless: a floor above the size of every group."""

    def __str__(self) -> str:
        return escaped(super().__str__(), _LAYOUT)


class PlancError(Exception):
    """Base of every error raised on purpose by planc."""

    def __str__(self) -> str:
        return escaped(super().__str__(), _LAYOUT)


class TraceError(PlancError):
    """The model could not be traced with the given example inputs."""


class AnalysisError(PlancError):
    """The graph could not be analysed (an operator without a rule under ``strict=True``, ...)."""


class PolicyError(PlancError, ValueError):
    """A request beyond any plan's reach: a ratio out of range, a pattern without a match."""


class InfeasibleBudget(PolicyError):
    """No plan reaches the budget; the message names the closest reachable figure."""


class CalibrationError(PlancError, ValueError):
    """The model could not be calibrated with the given batches and loss."""


class FileError(PlancError):
    """The file is not valid. ``OSError`` passes through unchanged."""


class NotAPlancFile(FileError):
    """The file does not begin with the magic bytes of a planc file."""


class UnsupportedVersion(FileError):
    """The file was written by a planc with another format version or feature."""


class TruncatedFile(FileError):
    """The file ends before the end given by its header."""


class TrailingData(FileError):
    """The file continues after the end given by its header."""


class CorruptFile(FileError):
    """The digest in the file does not match its content."""


class MalformedFile(FileError):
    """The content is not a valid canonical record."""


class LimitExceeded(FileError):
    """The content exceeds the reader's limits."""


class UnsafePath(FileError):
    """The path is not a plain file inside the required directory."""


class StaleError(PlancError):
    """The plan does not belong to the given object."""


class StalePlan(StaleError):
    """The plan was made for another structure; the first difference is named."""


class AlreadyApplied(StaleError):
    """The object already has the structure of the plan's result."""


class ShardMismatch(StaleError):
    """Shards of one checkpoint do not belong together."""


class SizeMismatch(StaleError, ValueError):
    """The inputs of a rewritten graph have sizes outside those followed by its trace."""


class VerificationError(PlancError):
    """The result differs from the plan's promise; the first difference is named."""
