"""The results folder as an RO-Crate: who measured what with which software, and the checksum of every file.

Source: RO-Crate specification 1.2, data entities and provenance (CreateAction).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from report.errors import ReportError
from report.files import read_text, write_text
from report.inventory import KINDS, Archived, inventory
from report.origins import Origin
from report.page import Content

METADATA = "ro-crate-metadata.json"
_VERSION = "1.2"
_UNCOUNTED = "; in no table: it failed, is incomplete or superseded, or is not planned"
_STEPS = (
    ("tables", ("records", "plan"), "python -m data_parsing", "Tables were computed from the records."),
    ("figures", ("tables",), "python -m figures", "Figures were drawn from the tables."),
    ("claims", ("tables",), "python -m claims", "Claims of the paper were judged by the tables."),
    ("report", ("tables", "figures", "claims"), "python -m report", "Everything was put on one page."),
)
"""After measuring: the kind that is made, of which kinds, by which program, in a sentence."""


@dataclass(frozen=True)
class Citation:
    """Of CITATION.cff: what a reader of the crate has to know."""

    title: str
    version: str
    license: str
    authors: tuple[str, ...]
    paper: str
    paper_authors: tuple[str, ...]


def read_citation(path: Path) -> Citation:
    """Raises ReportError where the file does not say who made the software, and under which licence."""
    try:
        data = yaml.safe_load(read_text(path))
        papers = [reference for reference in data.get("references", ()) if reference["type"] == "conference-paper"]
        paper: dict[str, Any] = papers[0] if papers else {"title": "", "authors": ()}
        return Citation(
            data["title"],
            str(data["version"]),
            data["license"],
            tuple(_name(author) for author in data["authors"]),
            paper["title"],
            tuple(_name(author) for author in paper["authors"]),
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(f"{path}: not a CITATION.cff with title, version, license and authors: {error!r}") from error


def _name(author: Mapping[str, str]) -> str:
    return author.get("name") or f"{author['given-names']} {author['family-names']}"


def write_crate(results: Path, content: Content, citation: Path) -> Path:
    """Write ``ro-crate-metadata.json`` into the results folder; returns its path."""
    files = tuple(inventory(results))
    crate = _Crate(content, read_citation(citation), files).build(results)
    text = json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False)
    write_text(results / METADATA, text + "\n")
    return results / METADATA


class _Crate:
    """Builds one crate; entities are added in the order of what needs what."""

    def __init__(self, content: Content, citation: Citation, files: Sequence[Archived]) -> None:
        self._content, self._citation, self._files = content, citation, files
        self._crate = ROCrate(version=_VERSION)
        self._counted = {name for origin in content.origins.groups for name in origin.scenarios}
        self._entities: dict[str, list[Entity]] = {kind.name: [] for kind in KINDS}

    def build(self, results: Path) -> ROCrate:
        """All of it."""
        self._describe_root()
        by_path = {}
        for file in self._files:
            entity = self._add_file(results, file)
            self._entities[file.kind.name].append(entity)
            by_path[file.path] = entity
        for number, origin in enumerate(self._content.origins.groups, 1):
            self._add_measuring(number, origin, by_path)
        workflow = self._software("workflow", "treespec workflow", self._citation.version)
        for made, of, program, sentence in _STEPS:
            if self._entities[made]:
                objects = [entity for kind in of for entity in self._entities[kind]]
                self._add_action(made, f"{sentence} Program: {program}.", workflow, objects, self._entities[made])
        return self._crate

    def _describe_root(self) -> None:
        content, citation, root = self._content, self._citation, self._crate.root_dataset
        root["name"] = f"treespec on {content.platform}: records, tables, figures and verdicts"
        root["description"] = (
            f"Tree-based speculative decoding measured on platform {content.platform} ({content.description}): "
            f"{content.num_done} of {content.num_planned} planned scenarios have a record, "
            f"{content.num_drawn} of {content.num_figures} figures are drawn."
        )
        root["datePublished"] = content.made_at
        # A name without given and family name is that of a group.
        root["author"] = [self._add(f"#author-{i}", "Organization", name=n) for i, n in enumerate(citation.authors, 1)]
        root["license"] = self._add(
            f"https://spdx.org/licenses/{citation.license}", "CreativeWork", name=citation.license
        )
        root["keywords"] = ["speculative decoding", "large language models", "SpecInfer", "reproduction"]
        if citation.paper:
            people = [
                self._add(f"#paper-author-{i}", "Person", name=n) for i, n in enumerate(citation.paper_authors, 1)
            ]
            root["citation"] = self._add("#paper", "ScholarlyArticle", name=citation.paper, author=people)

    def _add_file(self, results: Path, file: Archived) -> Entity:
        properties = {
            "name": file.path,
            "description": f"{file.kind.what}{_UNCOUNTED if self._is_uncounted(file) else ''}",
            "encodingFormat": file.media_type,
            "contentSize": str(file.num_bytes),
            "sha256": file.sha256,
        }
        added: Entity = self._crate.add_file(results / file.path, dest_path=file.path, properties=properties)
        return added

    def _is_uncounted(self, file: Archived) -> bool:
        """Whether it is part of a record that no table counts."""
        return file.kind.name == "records" and _scenario(file.path) not in self._counted

    def _add_measuring(self, number: int, origin: Origin, by_path: Mapping[str, Entity]) -> None:
        engine = self._software(f"engine-{origin.commit}", "treespec engine", origin.facts.get("treespec", "unknown"))
        engine["identifier"] = origin.commit
        engine["softwareRequirements"] = [
            f"{key} {origin.facts[key]}" for key in ("python", "torch", "numpy") if key in origin.facts
        ]
        names = set(origin.scenarios)
        results = [by_path[path] for path in by_path if path.startswith("raw/") and _scenario(path) in names]
        facts = ", ".join(f"{key} {value}" for key, value in origin.facts.items())
        objects = [*self._entities["configuration"], *self._entities["plan"]]
        action = self._add_action(f"measuring-{number}", f"Records were measured: {facts}.", engine, objects, results)
        action["startTime"], action["endTime"] = origin.started_at, origin.finished_at

    def _add_action(
        self, name: str, sentence: str, instrument: Entity, objects: Sequence[Entity], results: Sequence[Entity]
    ) -> Entity:
        action = self._add(
            f"#{name}",
            "CreateAction",
            name=sentence.partition(".")[0].partition(":")[0],
            description=sentence,
            instrument=instrument,
            object=[*objects],
            result=[*results],
            actionStatus={"@id": "http://schema.org/CompletedActionStatus"},
        )
        self._crate.root_dataset.append_to("mentions", action)
        return action

    def _software(self, name: str, title: str, version: str) -> Entity:
        return self._add(
            f"#{name}",
            "SoftwareApplication",
            name=title,
            description=self._citation.title,
            softwareVersion=version,
            license=self._crate.root_dataset["license"],
        )

    def _add(self, identifier: str, kind: str, **properties: Any) -> Entity:
        entity: Entity = self._crate.add(ContextEntity(self._crate, identifier, {"@type": kind, **properties}))
        return entity


def _scenario(path: str) -> str:
    """The scenario that a file directly in raw/ belongs to."""
    name = path.removeprefix("raw/")
    return next((name.removesuffix(s) for s in (".meta.json", ".jsonl", ".txt", ".out") if name.endswith(s)), "")
