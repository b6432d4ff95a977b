"""The errors EdgeSpec raises on purpose, each in one line: seen - expected - what to do.

EdgeSpecError
├── UsageError              bad flags, values or configuration (exit code 2)
├── ModelFileError          a model file is missing, truncated, corrupt or of the wrong kind (2)
├── ContextError            a prompt longer than the context, or a context that does not fit (2)
├── TokenizerError          text and vocabulary do not go together (2)
├── ShapeError              arrays that do not fit each other (a caller's mistake) (2)
├── BackendError            the inference library failed while running (1)
├── BusyError               another thread's generation is in progress, or too many wait (1)
└── Cancelled               the caller asked to stop; the session stays usable (130)
"""

from __future__ import annotations


class EdgeSpecError(Exception):
    """Base of all; `exit_code` is what the command line returns."""

    exit_code = 2


class UsageError(EdgeSpecError):
    """Bad flags, values or configuration."""


def is_own(error: ModuleNotFoundError) -> bool:
    """Whether what is missing is a module of EdgeSpec's own: a fault, and nothing to install."""
    return (error.name or "").split(".")[0] == "edgespec"


def not_installed(error: ModuleNotFoundError) -> UsageError:
    """The line about a package that an extra brings."""
    return UsageError(
        f"the package {error.name} is not installed: expected it for making model files; type "
        "`pip install 'edgespec[export]'`"
    )


class ModelFileError(EdgeSpecError):
    """A model file is missing, truncated, corrupt or not a language model."""


class ContextError(EdgeSpecError):
    """A prompt longer than the context, or a context that does not fit in memory."""


class TokenizerError(EdgeSpecError):
    """A text cannot be written in this vocabulary, or a template does not fit."""


class ShapeError(EdgeSpecError):
    """Arrays whose shapes contradict each other."""


class BackendError(EdgeSpecError):
    """The inference library failed while running."""

    exit_code = 1


class BusyError(EdgeSpecError):
    """Another thread's generation is in progress on this session, or too many requests wait."""

    exit_code = 1


class Cancelled(EdgeSpecError):
    """Stopped at the caller's wish."""

    exit_code = 130
