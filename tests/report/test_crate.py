"""The RO-Crate: rocrate reads it, every file it lists is there as it says, and it tells who made what with what."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from rocrate.rocrate import ROCrate

from report.cli import main
from tests.report.results_files import DONE, FAILED, write_record, write_results

CITATION = Path(__file__).parents[2] / "CITATION.cff"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = write_results(tmp_path / "results/made_up")
    write(made)
    return made


def write(results: Path, citation: Path = CITATION) -> int:
    """Page and crate into the folder."""
    output = results / "report.html"
    return main(["--results", str(results), "--output", str(output), "--crate", "--citation", str(citation)])


def graph(results: Path) -> dict[str, dict[str, Any]]:
    """The crate's entities by id."""
    data = json.loads((results / "ro-crate-metadata.json").read_text())
    return {entity["@id"]: entity for entity in data["@graph"]}


def test_required_properties_are_there(results: Path) -> None:
    root = ROCrate(results).root_dataset
    assert {"name", "description", "datePublished", "license", "author"} <= {*root}
    assert root["license"].id == "https://spdx.org/licenses/Apache-2.0"
    assert [author["name"] for author in root["author"]] == ["The treespec maintainers"]
    assert root["citation"]["name"].startswith("SpecInfer:")
    descriptor = graph(results)["ro-crate-metadata.json"]
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    assert descriptor["about"] == {"@id": "./"}


def test_every_file_is_as_it_says(results: Path) -> None:
    files = ROCrate(results).data_entities
    listed = {file.id for file in files}
    for file in files:
        data = (results / file.id).read_bytes()
        assert file["sha256"] == hashlib.sha256(data).hexdigest(), file.id
        assert file["contentSize"] == str(len(data))
        assert "/" in file["encodingFormat"]
    here = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    assert here - listed == {"ro-crate-metadata.json", "raw/.lock"}


def test_records_that_do_not_count_say_so(results: Path) -> None:
    other = "server_small-64_batchsize-incr_dec"
    write_record(results, other)
    assert write(results) == 0
    said = {name: entity.get("description", "") for name, entity in graph(results).items()}
    uncounted = {name for name, description in said.items() if "; in no table" in description}
    own = {f"raw/{other}{suffix}" for suffix in (".meta.json", ".jsonl", ".txt", ".out")}
    assert uncounted == {*own, "raw/superseded/a.01234567.meta.json"}


def test_no_path_of_this_machine(results: Path, tmp_path: Path) -> None:
    text = (results / "ro-crate-metadata.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.cwd()) not in text


def test_every_reference_leads_somewhere(results: Path) -> None:
    entities = graph(results)

    def references(value: object) -> list[str]:
        if isinstance(value, list):
            return [found for item in value for found in references(item)]
        return [value["@id"]] if isinstance(value, dict) else []

    asked = {name for entity in entities.values() for value in entity.values() for name in references(value)}
    # The specification itself, and the status that schema.org defines.
    outside = {"https://w3id.org/ro/crate/1.2", "http://schema.org/CompletedActionStatus"}
    assert asked - entities.keys() == outside


def test_actions_tell_what_made_what(results: Path) -> None:
    write_record(results, FAILED, commit="fedcba987654")
    table = results / "csv/server.csv"
    table.write_text(table.read_text().replace("failed", "ok"))
    assert write(results) == 0
    crate = ROCrate(results)
    actions = {action.id: action for action in crate.get_by_type("CreateAction")}
    assert actions.keys() == {"#measuring-1", "#measuring-2", "#tables", "#figures", "#claims", "#report"}
    by_commit = {action["instrument"]["identifier"]: action for name, action in actions.items() if "measuring" in name}
    assert by_commit.keys() == {"0123456789ab", "fedcba987654"}
    made = {file.id for file in by_commit["0123456789ab"]["result"]}
    assert made == {f"raw/{DONE}{suffix}" for suffix in (".meta.json", ".jsonl", ".txt", ".out")}
    assert by_commit["0123456789ab"]["startTime"] == "2026-01-02T03:04:05+00:00"
    assert "Example CPU" in by_commit["0123456789ab"]["description"]
    assert actions["#report"]["result"] == [crate.get("report.html")]
    assert {file.id for file in actions["#figures"]["object"]} == {"csv/requests.csv", "csv/server.csv"}
    assert {action.id for action in crate.root_dataset["mentions"]} == actions.keys()


def test_a_folder_without_records(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert write(tmp_path / "results") == 0
    crate = ROCrate(tmp_path / "results")
    assert [file.id for file in crate.data_entities] == ["report.html"]
    assert [action.id for action in crate.get_by_type("CreateAction")] == ["#report"]


@pytest.mark.parametrize("text", ["title: x\n", "- a list", "a: [", ""])
def test_a_citation_without_an_author_is_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    citation = tmp_path / "CITATION.cff"
    citation.write_text(text)
    capsys.readouterr()
    assert write(results, citation) == 2
    said = capsys.readouterr().err
    assert "CITATION.cff: not a CITATION.cff with title, version, license and authors" in said
    assert len(said.splitlines()) == 1
