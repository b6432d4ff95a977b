"""Asks the hub what a repository holds, through huggingface_hub.

Whatever that library raises ends here, in one line that says what to do.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgespec.errors import BackendError, EdgeSpecError, UsageError
from edgespec.files import why
from edgespec.store.hub import cache

AGENT = "edgespec"  # how requests name who asks
HEX = re.compile(r"[0-9a-f]*")
TIMEOUT_S = 10.0


class NoAnswerError(BackendError):
    """The hub cannot be reached or is out of order; what is in the cache may do."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it; sha256 is "" for a small one it keeps otherwise."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Listing:
    """The files of a repository, by name, as of one commit."""

    repo: str
    commit: str
    files: Mapping[str, RemoteFile]


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids all requests."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def listing(repo: str) -> Listing:
    """What the branch main of a repository holds. Raises: UsageError, NoAnswerError."""
    from huggingface_hub import HfApi

    with explained(repo, strange=(ValueError, KeyError, TypeError)):
        info = HfApi(user_agent=AGENT).model_info(repo, files_metadata=True, timeout=TIMEOUT_S)
        found = [
            RemoteFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else "")
            for one in info.siblings or []
        ]
        for name in (str(info.sha), *(one.sha256 for one in found)):
            if not HEX.fullmatch(name):  # it becomes a file's name
                raise ValueError(f"{name!r} is no sum")
        safe = [one for one in found if ".." not in one.name and not one.name.startswith("/")]
        return Listing(repo, str(info.sha), {one.name: one for one in safe})


def utils() -> Any:
    """The library's own tools, which it exports in a way that type checkers do not see."""
    return import_module("huggingface_hub.utils")


def failures() -> tuple[type[Exception], ...]:
    """What the library lets out when a request fails; its HTTP client differs by version."""
    from huggingface_hub.errors import HfHubHTTPError

    return OSError, HfHubHTTPError, HfHubHTTPError.__mro__[1]


@contextmanager
def explained(repo: str, strange: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Turns what the library raises into one line of ours; strange: an answer that is none."""
    try:
        yield
    except strange as error:
        raise NoAnswerError(
            f"{_host()} did not answer as a hub does ({short(error)}): check HF_ENDPOINT, and "
            "whether the network asks you to sign in"
        ) from error
    except failures() as error:
        raise _error(error, repo) from error


def _error(error: Exception, repo: str) -> EdgeSpecError:
    from huggingface_hub import errors, get_token

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the library looked in the cache at all
    status, host = status_of(error), _host()
    if isinstance(error, errors.GatedRepoError):
        return UsageError(
            f"{repo} is gated ({status}): expected an account that was let in: ask at "
            f"{host}/{repo}, then set HF_TOKEN to a token of that account"
        )
    if status == 401 and get_token():
        return UsageError(
            f"the hub does not accept your token for {repo} (401): check HF_TOKEN, and the "
            "repository's name"
        )
    if status == 401:
        return UsageError(
            f"the hub shows no {repo} to strangers (401): check the name; if it is private, set "
            f"HF_TOKEN to a token from {host}/settings/tokens"
        )
    if status == 403:
        return UsageError(
            f"the hub refuses {repo} (403): expected a token that may read it: see "
            f"{host}/settings/tokens, and set HF_TOKEN"
        )
    if status == 404:
        return UsageError(
            f"there is no {repo} at {host} (404): expected USER/REPO as its page is called; "
            "pairs known to work together: `edgespec models list`"
        )
    if is_local(error):
        return BackendError(
            f"{getattr(error, 'filename', None) or cache.folder()} cannot be written "
            f"({short(error)}): expected room and rights there, or set HF_HOME to another folder"
        )
    if status:
        hint = "set HF_TOKEN for a higher limit, or wait" if status == 429 else "try again later"
        return NoAnswerError(f"{host} failed with {status} for {repo}: {hint}")
    return NoAnswerError(
        f"{host} cannot be reached ({short(error)}): check the network; what is in the cache "
        "works without"
    )


def status_of(error: Exception) -> int:
    """The HTTP status an error is about, 0 if none."""
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def is_local(error: Exception) -> bool:
    """Whether this device's disk is what failed."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO,
               errno.ENOTDIR, errno.EEXIST)  # fmt: skip
    return getattr(error, "errno", None) in numbers


def short(error: Exception) -> str:
    """What it says, in part of a line."""
    return " ".join(str(why(error) or type(error).__name__).split())[:80]


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
