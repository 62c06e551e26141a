"""Every historical form of the profile line is read, and what is damaged or not measured stays out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_parsing.profile_lines import ProfileEntry, ProfileLog, read_profile_log

GOLDEN = Path(__file__).parent / "golden"
ARTIFACT_PATTERN = re.compile(r"\[Profile\] guid\((\d+)\) .*latency\((\d+\.\d+)\)")


def read_golden(name: str) -> ProfileLog:
    return read_profile_log((GOLDEN / name).read_text(encoding="utf-8"))


def latencies_us(log: ProfileLog) -> dict[int, float]:
    return {entry.guid: entry.latency_us for entry in log.entries}


def test_artifact_log() -> None:
    log = read_golden("artifact.out")
    assert log.entries == (
        ProfileEntry(1000000, 9968723.0, 116, 3497515579.0, 3507484302.0),
        ProfileEntry(1000001, 1000000.5, 40, 3497515579.0, 3498515579.5),
    )
    assert (log.num_damaged, log.num_duplicates, log.num_unmeasured) == (0, 0, 0)


def test_own_log_reads_the_same_with_our_reader_and_the_artifacts_pattern() -> None:
    text = (GOLDEN / "treespec.out").read_text(encoding="utf-8")
    by_pattern = {int(guid): float(latency) for guid, latency in ARTIFACT_PATTERN.findall(text)}
    assert by_pattern == latencies_us(read_profile_log(text)) == {1000000: 800000.0, 1000001: 1000000.0}


def test_accumulated_latency_of_2023_is_not_taken_for_the_latency() -> None:
    log = read_golden("release_2023.out")
    assert latencies_us(log) == {1000000: 2000.0, 1000001: 3000.0}
    assert [entry.num_target_steps for entry in log.entries] == [118, 90]


def test_warm_up_and_fine_tuning_are_not_measured() -> None:
    log = read_golden("flexflow_serve.out")
    assert latencies_us(log) == {1000001: 3000000.0, 1000002: 2000000.0, 1000003: 2500000.0}
    assert [entry.first_token_us for entry in log.entries] == [210345.0, -81.0, None]
    assert log.num_unmeasured == 2


def test_entries_inside_an_output_file_need_no_line_of_their_own() -> None:
    log = read_golden("flexflow_serve.txt")
    assert latencies_us(log) == {1000000: 3068160.0, 1000001: 1000000.0}
    assert [entry.start_us for entry in log.entries] == [None, None]


def test_blocks_in_milliseconds() -> None:
    log = read_golden("specscheduler.out")
    assert latencies_us(log) == {1000000: 1500250.0, 1000001: pytest.approx(1.23457e9), 1000002: 2000000.0}
    assert [entry.num_target_steps for entry in log.entries] == [30, 90, 50]
    assert log.num_damaged == 1


def test_damage_is_counted_and_left_out() -> None:
    log = read_golden("damaged.out")
    # 1000001 has its latency cut, which finish - start still says; 1000005 was printed twice.
    assert latencies_us(log) == {1000000: 1000.0, 1000001: 2000.0, 1000003: 4000.0, 1000005: 6000.0}
    assert log.num_duplicates == 1
    # Cut at 1000002, contradiction at 1000004, cut tag, a prompt's text, cut at the end of the file.
    assert log.num_damaged == 5


def test_every_cut_of_a_log_is_read_without_an_error() -> None:
    text = (GOLDEN / "artifact.out").read_text(encoding="utf-8")
    whole = latencies_us(read_profile_log(text))
    for length in range(len(text)):
        cut = latencies_us(read_profile_log(text[:length]))
        assert cut.items() <= whole.items()


def test_empty_log() -> None:
    assert read_profile_log("") == ProfileLog((), 0, 0, 0)
