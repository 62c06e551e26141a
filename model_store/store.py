"""Models on the disk: what each lacks, and bringing it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_store.catalogue import Catalogue
from model_store.disk import require_room
from model_store.errors import HubError, unwritable
from model_store.fetch import digest_of, fetch, part_of
from model_store.holder import held
from model_store.hub import Hub, RemoteFile
from model_store.layout import is_weights, partial_of, whole_files, written_name
from model_store.lock import LockedModel, pin, read_lock
from model_store.manifest import (
    FetchedFiles,
    Precision,
    damaged_files,
    read_fetched,
    read_manifest,
    recorded,
    write_manifest,
)
from model_store.source import Source, listed_source, locked_source, require_agreement
from treespec.config.manifest import FileRecord, is_unchanged
from treespec.errors import ConfigError
from treespec.log import say

SUFFIX: Mapping[Precision, str] = {"half": "", "full": "-full-precision"}
ONLINE = "run once without --offline (and without HF_HUB_OFFLINE)"
WIDTH: Mapping[Precision, int] = {"half": 2, "full": 4}


@dataclass(frozen=True)
class Policy:
    """How a command wants it."""

    offline: bool = False
    verify: bool = False  # read everything, whatever sizes and times say
    update_lock: bool = False
    refresh: bool = False
    keep_originals: bool = False


@dataclass(frozen=True)
class Plan:
    """What a model lacks, found without changing anything."""

    source: Source
    is_locked: bool
    faults: tuple[str, ...]  # of what is here
    lacking: tuple[RemoteFile, ...]  # to be fetched
    num_bytes: int  # of these, what is not here yet
    least_bytes: int  # that conversion will take besides, whatever the weights' precision is
    most_bytes: int


@dataclass(frozen=True)
class Store:
    """A cache folder: models below it by name, what they were made of in hidden folders."""

    cache: Path
    lock_file: Path
    catalogue: Catalogue
    policy: Policy = Policy()
    hub: Hub = field(default_factory=Hub)

    def folder(self, repository: str, precision: Precision) -> Path:
        """Where a model is, or will be."""
        return self.cache / f"{repository}{SUFFIX[precision]}"

    def originals(self, repository: str) -> Path:
        """Where its repository's files are fetched to."""
        return self.cache / ".originals" / repository

    def plan(self, repository: str, precisions: Sequence[Precision], *, verify: bool = False) -> Plan:
        """Raises HubError, ConfigError."""
        for precision in precisions:
            self._require_ours(self.folder(repository, precision))
        source = self._source(repository)
        locked = self._known(source)
        faults = {item: self._fault(item, source, locked, verify=verify) for item in precisions}
        absent = [item for item, fault in faults.items() if fault is not None]
        needed = self._needed(source, locked, absent, verify=verify)
        folder = self.originals(repository)
        records = read_fetched(folder)
        lacking = [
            file
            for file in needed
            if self.policy.refresh or _original_problem(folder, file, records, verify=verify) is not None
        ]
        num_bytes = sum(file.size for file in lacking) - _part_bytes(folder, lacking)
        is_locked = repository in read_lock(self.lock_file) and not self.policy.update_lock
        told = tuple(fault for fault in faults.values() if fault)
        return Plan(source, is_locked, told, tuple(lacking), num_bytes, *_conversion_bytes(needed, absent))

    def bring(self, plan: Plan, precisions: Sequence[Precision]) -> list[Path]:
        """Fetch and convert what is lacking, one process at a time; the model's folders, whole."""
        repository = plan.source.repository
        with held(self.cache / ".locks" / f"{repository.replace('/', '--')}.lock"):
            entry = None if self.policy.update_lock else read_lock(self.lock_file).get(repository)
            source = plan.source if entry is None else locked_source(repository, entry)
            if self.policy.refresh:
                self._remove(repository, precisions)
            locked = self._known(source)
            verify = self.policy.verify
            faults = {item: self._fault(item, source, locked, verify=verify) for item in precisions}
            for fault in filter(None, faults.values()):
                say(fault)
            absent = [item for item, fault in faults.items() if fault is not None]
            if absent:
                locked = self._fetched(source, locked, absent)
                self._convert(repository, absent, locked)
                self._drop_originals(source)
            assert locked is not None
            if not self.policy.offline:
                pin(self.lock_file, repository, locked)
        return [self.folder(repository, precision) for precision in precisions]

    def _convert(self, repository: str, precisions: Sequence[Precision], locked: LockedModel) -> None:
        from model_store.convert import Conversion  # torch: nothing else here needs it

        for precision in precisions:
            target = self.folder(repository, precision)
            Conversion(repository, precision, self.originals(repository), locked, target).run()

    def _source(self, repository: str) -> Source:
        """What the lock says; else what the hub has; offline, what the folders say that they are made of."""
        locks = read_lock(self.lock_file)
        if repository in locks and not self.policy.update_lock:
            return locked_source(repository, locks[repository])
        if self.policy.offline:
            if (made_of := next(iter(self._made_of(repository)), None)) is not None:
                return locked_source(repository, made_of)
            raise HubError("not here, and nothing says what it is", where=repository, received="offline", fix=ONLINE)
        return listed_source(self.hub, self.catalogue, repository, locks)

    def _made_of(self, repository: str) -> list[LockedModel]:
        manifests = [read_manifest(self.folder(repository, precision)) for precision in SUFFIX]
        return [manifest.source for manifest in manifests if manifest is not None]

    def _known(self, source: Source) -> LockedModel | None:
        """The source with all hashes, if they are known already: from the lock, or from what was made of it."""
        if all(file.sha256 is not None for file in source.files.values()):
            return source.locked({})
        return next((made for made in self._made_of(source.repository) if made.revision == source.revision), None)

    def _fault(self, precision: Precision, source: Source, locked: LockedModel | None, *, verify: bool) -> str | None:
        """What is wrong with a model's folder, empty where it is just not there; None where it needs nothing."""
        folder = self.folder(source.repository, precision)
        manifest = read_manifest(folder)
        if manifest is None or self.policy.refresh:
            return ""
        if manifest.source != locked:
            return f"{folder}: made of revision {manifest.source.revision}, wanted is {source.revision}"
        damaged = damaged_files(folder, manifest.files, verify=verify)
        if not damaged:
            return None
        return f"{folder}: " + ", ".join(f"{name} {problem}" for name, problem in sorted(damaged.items()))

    def _needed(
        self, source: Source, locked: LockedModel | None, absent: Sequence[Precision], *, verify: bool
    ) -> list[RemoteFile]:
        """The files that conversion will read: not the weights of what is already converted."""
        here: list[Mapping[str, FileRecord]] = []
        for precision in absent:
            target = self.folder(source.repository, precision)
            folder = target if target.exists() else partial_of(target)
            here.append({} if self.policy.refresh else whole_files(folder, locked, precision, verify=verify))
        return [
            file
            for name, file in source.files.items()
            if any(not is_weights(name) or written_name(name) not in files for files in here)
        ]

    def _fetched(self, source: Source, locked: LockedModel | None, absent: Sequence[Precision]) -> LockedModel:
        """All files that conversion needs, fetched and right; the source with every hash."""
        folder = self.originals(source.repository)
        records = read_fetched(folder)
        lacking = []
        for file in self._needed(source, locked, absent, verify=self.policy.verify):
            problem = _original_problem(folder, file, records, verify=self.policy.verify)
            if problem is not None:
                lacking.append(file)
                if problem != "missing":
                    say(f"{file}: damaged here, {problem}; fetched anew")
        self._fetch_all(source, lacking, records)
        return locked or source.locked({name: record.sha256 for name, record in records.items()})

    def _fetch_all(self, source: Source, lacking: Sequence[RemoteFile], records: dict[str, FileRecord]) -> None:
        if not lacking:
            return
        folder = self.originals(source.repository)
        if self.policy.offline:
            names = ", ".join(file.name for file in lacking)
            where, received = f"{source.repository}, {folder}", f"offline, lacking {names}"
            raise HubError("model is not whole here", where=where, received=received, fix=ONLINE)
        if all(file.sha256 is not None for file in source.files.values()):
            listing = self.hub.listing(source.repository, source.revision)
            require_agreement(source, listing, str(self.lock_file))
        require_room(folder, sum(file.size for file in lacking) - _part_bytes(folder, lacking))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, folder) from error
        for file in lacking:
            sha256 = fetch(self.hub, file, folder)
            records[file.name] = recorded(folder / file.name, sha256)
            write_manifest(folder, FetchedFiles(files=dict(sorted(records.items()))))

    def _drop_originals(self, source: Source) -> None:
        """Weights that were converted are not needed any more; those that have a second name cost nothing."""
        if self.policy.keep_originals:
            return
        for path in map(self.originals(source.repository).joinpath, filter(is_weights, source.files)):
            if path.exists() and path.stat().st_nlink == 1:
                path.unlink()

    def _remove(self, repository: str, precisions: Sequence[Precision]) -> None:
        for folder in (self.originals(repository), *(self.folder(repository, precision) for precision in precisions)):
            shutil.rmtree(partial_of(folder), ignore_errors=True)
            if folder.exists():
                shutil.rmtree(folder)

    def _require_ours(self, folder: Path) -> None:
        if folder.exists() and read_manifest(folder) is None:
            raise ConfigError(
                "a folder of this name is there that was not made by this command",
                where=str(folder),
                received="no manifest.json that can be read",
                fix="move it away, or choose another --cache-folder",
            )


def _original_problem(folder: Path, file: RemoteFile, records: dict[str, FileRecord], *, verify: bool) -> str | None:
    """What keeps a fetched file from being used; notes the hash of one that is right."""
    path, record = folder / file.name, records.get(file.name)
    if not path.is_file():
        return "missing"
    if record is not None and record.sha256 == file.sha256 and not verify and is_unchanged(path, record):
        return None
    digest = digest_of(path, file)
    if (mismatch := digest.mismatch()) is None:
        records[file.name] = recorded(path, digest.sha256)
    return mismatch


def _part_bytes(folder: Path, files: Sequence[RemoteFile]) -> int:
    return sum(part.stat().st_size for file in files if (part := part_of(folder, file)).exists())


def _conversion_bytes(needed: Sequence[RemoteFile], precisions: Sequence[Precision]) -> tuple[int, int]:
    """At least and at most: whether the weights are stored in two or in four bytes each is seen when they are here."""
    weights = [file for file in needed if is_weights(file.name)]
    num_bytes, is_linked = sum(file.size for file in weights), all(not file.name.endswith(".bin") for file in weights)
    costs = [
        sum(num_bytes * WIDTH[item] // stored for item in precisions if not (is_linked and WIDTH[item] == stored))
        for stored in (2, 4)
    ]
    return min(costs), max(costs)
