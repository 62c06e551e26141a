"""What a model is to be made of: files of the hub, from the lock or from the hub's listing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model_store.catalogue import Catalogue
from model_store.errors import HubError
from model_store.hub import Hub, Listing, RemoteFile
from model_store.lock import Borrowed, LockedFile, LockedModel

BRANCH = "main"


@dataclass(frozen=True)
class Source:
    """The wanted files of a repository at a revision; some may be another repository's."""

    repository: str
    revision: str
    files: dict[str, RemoteFile]

    def locked(self, hashes: Mapping[str, str]) -> LockedModel:
        """The same with the sha256 of every file, of those that the listing lacks from ``hashes``."""
        return LockedModel(
            revision=self.revision,
            files={
                name: LockedFile(size=file.size, sha256=file.sha256 or hashes[name], borrowed=self._borrowed(file))
                for name, file in sorted(self.files.items())
            },
        )

    def _borrowed(self, file: RemoteFile) -> Borrowed | None:
        if file.repository == self.repository:
            return None
        return Borrowed(repository=file.repository, revision=file.revision)


def locked_source(repository: str, model: LockedModel) -> Source:
    """As the lock says."""

    def remote(name: str, file: LockedFile) -> RemoteFile:
        owner, revision = repository, model.revision
        if file.borrowed is not None:
            owner, revision = file.borrowed.repository, file.borrowed.revision
        return RemoteFile(owner, revision, name, file.size, file.sha256, None)

    return Source(repository, model.revision, {name: remote(name, file) for name, file in model.files.items()})


def listed_source(hub: Hub, catalogue: Catalogue, repository: str, locks: Mapping[str, LockedModel]) -> Source:
    """As the hub has it now; a borrowed tokenizer comes from what its owner is locked to, if it is. Raises HubError."""
    listing = hub.listing(repository, BRANCH)
    names = catalogue.wanted(repository, listing.files)
    files = {name: listing.files[name] for name in names}
    donor = catalogue.tokenizer_donor(repository, listing.files)
    if donor is not None:
        lent = hub.listing(donor, locks[donor].revision if donor in locks else BRANCH)
        files = {name: lent.files[name] for name in catalogue.tokenizer_files(lent.files)} | files
    return Source(repository, listing.revision, files)


def require_agreement(source: Source, listing: Listing, lock_file: str) -> None:
    """Raises HubError where the hub does not have what the lock says."""
    for name, file in source.files.items():
        if file.repository != listing.repository:
            continue
        listed = listing.files.get(name)
        if listed is None or listed.size != file.size or listed.sha256 not in (None, file.sha256):
            raise HubError(
                "the hub's file is not the one that was locked",
                where=f"{file}, at revision {file.revision}",
                received="no such file" if listed is None else f"{listed.size} bytes, sha256 {listed.sha256}",
                allowed=f"{file.size} bytes, sha256 {file.sha256} ({lock_file})",
                fix="find out why; --update-lock takes what the hub has now",
            )
