"""What can go wrong between the hub and us, each told as one line with what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from treespec.errors import OutputError, TreespecError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HubError(TreespecError):
    """The hub, or what it sent, keeps a model from being had."""


def refusal(error: HfHubHTTPError, where: str) -> HubError:
    """What an answer of the hub means. Says nothing of the request's headers: they hold the token."""
    status = error.response.status_code
    has_token = get_token() is not None
    # Derived from RepositoryNotFoundError, so asked for first.
    if isinstance(error, GatedRepoError):
        what = "the token given has no access" if has_token else "no token given"
        fix = "accept the model's terms on its page, then set HF_TOKEN to a token of that account"
        return HubError(f"gated repository, {what}", where=where, received=f"status {status}", fix=fix)
    if isinstance(error, RepositoryNotFoundError):
        fix = "check the name" if has_token else "check the name; if the repository is private, set HF_TOKEN"
        return HubError("no such repository", where=where, received=f"status {status}", fix=fix)
    if isinstance(error, RevisionNotFoundError):
        fix = "--update-lock takes the repository as it is now"
        return HubError("the repository has no such revision", where=where, received=f"status {status}", fix=fix)
    if isinstance(error, RemoteEntryNotFoundError):
        fix = "--update-lock takes the repository as it is now"
        return HubError("the repository has no such file", where=where, received=f"status {status}", fix=fix)
    if status in (401, 403):
        fix = "check HF_TOKEN, and that it may read this repository" if has_token else "set HF_TOKEN"
        return HubError("access refused", where=where, received=f"status {status}", fix=fix)
    if status == 429:
        return HubError("the hub asks for fewer requests", where=where, received="status 429", fix="try again later")
    if status == 404:
        fix = "check the name, and that HF_ENDPOINT is the address of a hub"
        received = f"status 404 for {error.response.url.path}"  # without the query, which may hold a signature
        return HubError("nothing is at the address asked for", where=where, received=received, fix=fix)
    fix = "try again later; what is fetched stays" if status >= 500 else "check HF_ENDPOINT"
    return HubError("the hub does not answer as it should", where=where, received=f"status {status}", fix=fix)


def unreachable(error: Exception, where: str) -> HubError:
    """What a connection that failed means."""
    causes = list(_chain(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        what, fix = "the hub's name cannot be resolved", "check the network and HF_ENDPOINT, or use --offline"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        what, fix = "the hub refuses the connection", "check HF_ENDPOINT and the proxy settings, or use --offline"
    elif any(isinstance(cause, ssl.SSLError) for cause in causes):
        what, fix = "no trusted connection to the hub", "check SSL_CERT_FILE and the machine's clock"
    elif isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
        what, fix = "not an address of a hub", "set HF_ENDPOINT to http(s)://HOST, or unset it"
    elif isinstance(error, httpx2.TimeoutException):
        what, fix = "the hub is silent", "try again later; what is fetched stays"
    else:
        what, fix = "the connection to the hub was lost", "try again later; what is fetched stays"
    return HubError(what, where=where, received=type(error).__name__, fix=fix)


def unwritable(error: OSError, path: Path) -> OutputError:
    """What a file system that takes no more means."""
    fix = "make room, or choose another --cache-folder; the same command goes on where it stopped"
    what = "no room" if error.errno in NO_ROOM else "cannot be written"
    return OutputError(what, where=str(path), received=error.strerror or str(error), fix=fix)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
