"""The hub through its own client: listings with the hashes of files, and files from any byte on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from time import sleep
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, parse_ratelimit_headers

from model_store.errors import HubError, refusal, unreachable
from treespec.log import say

BUSY = {408, 429, 500, 502, 503, 504}
CONNECTION_ERRORS = (httpx2.TransportError, httpx2.InvalidURL)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at a revision, and by what it is known to be whole."""

    repository: str
    revision: str
    name: str
    size: int
    sha256: str | None  # of large files only: the hub's listing has no more
    blob_id: str | None  # git's sha1 of the others

    def __str__(self) -> str:
        return f"{self.repository}, {self.name}"


@dataclass(frozen=True)
class Listing:
    """All files of a repository at a revision, by name."""

    repository: str
    revision: str
    files: dict[str, RemoteFile]


@dataclass(frozen=True)
class Patience:
    """How long to bear with a hub that is busy or out of reach."""

    max_tries: int = 5  # without a single byte in between
    first_wait_s: float = 1.0  # doubled each time
    max_wait_s: float = 300.0  # the hub counts requests over five minutes


@dataclass(frozen=True)
class Hub:
    """Asks with the client's token, proxies and time limits. Every failure is a HubError, once patience has ended."""

    endpoint: str = field(default_factory=lambda: (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"))
    patience: Patience = Patience()

    @property
    def name(self) -> str:
        """The hub's host; an address may hold a password."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2] or self.endpoint

    def listing(self, repository: str, revision: str) -> Listing:
        """The files of a repository; ``revision`` may be a branch, the listing names the commit."""
        where = f"{repository}, revision {revision}, at {self.name}"
        api = HfApi(endpoint=self.endpoint, library_name="treespec")

        def ask() -> ModelInfo:
            return api.model_info(
                repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
            )

        try:
            return _listing(repository, self.patiently(ask, where), where)
        except HFValidationError as error:
            raise HubError("not a name of a repository", received=repository, allowed="organisation/name") from error
        except CONNECTION_ERRORS as error:
            raise unreachable(error, where) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fix = "check HF_ENDPOINT, and whether this network asks for a login"
            raise HubError("the hub's answer is no listing", where=where, received=str(error), fix=fix) from error

    def stream(self, file: RemoteFile, offset: int) -> httpx2.Response:
        """The answer that holds a file's content from ``offset`` on, or from 0 if the hub will not; to be closed.

        Raises httpx2.TransportError where the connection fails: the caller knows what has arrived.
        """
        url = hf_hub_url(file.repository, file.name, revision=file.revision, endpoint=self.endpoint)
        headers = build_hf_headers(library_name="treespec") | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"

        def ask() -> httpx2.Response:
            session = get_session()
            request = session.build_request("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
            response = session.send(request, stream=True)
            try:
                hf_raise_for_status(response)
            except HfHubHTTPError:
                response.close()
                raise
            return response

        return self.patiently(ask, f"{file}, at {self.name}")

    def patiently(self, ask: Callable[[], ResultT], where: str) -> ResultT:
        """Ask again while the hub is busy, as long as it says, within limits. Raises HubError."""
        for attempt in range(1, self.patience.max_tries + 1):
            try:
                return ask()
            except HfHubHTTPError as error:
                response = error.response
                wait_s = self._wait_s(response, attempt)
                if response.status_code not in BUSY or attempt == self.patience.max_tries:
                    raise refusal(error, where) from error
                if wait_s > self.patience.max_wait_s:
                    self._give_up(error, where, wait_s)
                say(f"{self.name} answers {response.status_code}; waiting {wait_s:g} s ({attempt})")
                sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _wait_s(self, response: httpx2.Response, attempt: int) -> float:
        limits = parse_ratelimit_headers(response.headers)
        if response.status_code == 429 and limits is not None and limits.remaining == 0:
            return float(limits.reset_in_seconds)
        told = response.headers.get("Retry-After", "")
        return float(told) if told.isdecimal() else self.patience.first_wait_s * 2 ** (attempt - 1)

    def _give_up(self, error: HfHubHTTPError, where: str, wait_s: float) -> NoReturn:
        raise HubError(
            "the hub asks to wait for longer than this waits",
            where=where,
            received=f"status {error.response.status_code}, {wait_s:g} s",
            allowed=f"{self.patience.max_wait_s:g} s",
            fix=f"run the same command again in {wait_s / 60:.0f} minutes; what is fetched stays",
        ) from error


def _listing(repository: str, info: ModelInfo, where: str) -> Listing:
    revision = info.sha
    if not revision or info.siblings is None:
        raise HubError("the hub's listing names no revision or no files", where=where)
    files = {}
    for sibling in info.siblings:
        name, sha256 = sibling.rfilename, sibling.lfs.sha256 if sibling.lfs else None
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if size is None or (sha256 or sibling.blob_id) is None:
            raise HubError("the hub's listing names no size or no hash", where=where, received=name)
        files[name] = RemoteFile(repository, revision, name, size, sha256, None if sha256 else sibling.blob_id)
    return Listing(repository, revision, files)
