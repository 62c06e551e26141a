"""Every historical form of the profile line is read, and what is damaged or not measured stays out."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from data_parsing.original.profile_lines import ProfileEntry, ProfileLog, read_profile_log
from data_parsing.tables.experiments import artifact_per_token_latency_ms
from treespec.metrics.artifact_format import out_line
from treespec.metrics.counts import RequestProfile

GOLDEN = Path(__file__).parent / "golden"
# The original's server.py: what it greps for, and what it makes of a line (flaw 16: the last latency, any guid).
ARTIFACT_GREP = re.compile(r"\[Profile\] guid\(.*latency\(")
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


def profiles() -> list[RequestProfile]:
    """Of requests in the engine: short, long after the start, and of no time at all."""
    times = ((0, 800_000), (10_250, 3_507_484_302), (5, 5))
    return [RequestProfile(num_target_steps=44, start_us=start, finish_us=finish) for start, finish in times]


def test_the_artifacts_parser_reads_what_the_engine_writes() -> None:
    """Its grep, its pattern and its formula, line by line."""
    text = "".join(out_line(1_000_000 + number, profile) for number, profile in enumerate(profiles()))
    matches = [ARTIFACT_PATTERN.search(line) for line in text.splitlines() if ARTIFACT_GREP.search(line)]
    read = [(int(match[1]), float(match[2])) for match in matches if match is not None]
    expected = [(1_000_000 + number, profile.latency_us) for number, profile in enumerate(profiles())]
    assert read == expected
    assert list(latencies_us(read_profile_log(text)).items()) == expected
    by_formula = sum(latency for _, latency in read) / (128 * len(read) * 1000)
    assert by_formula == artifact_per_token_latency_ms(pd.Series([profile.latency_us for profile in profiles()]))
    assert read_profile_log(text).entries[0] == ProfileEntry(1_000_000, 800_000.0, 44, 0.0, 800_000.0)


LINE_FORMS = {
    "artifact_incremental.out": (
        *(r"^LLAMA Config:", r"^operator\[\d+\]: type\(\w+\) guid\(\d+\)", r"^Loading weight file \w+"),
        *(
            r"^No small speculative model registered",
            r"^Prompt\[\d+\]: ",
            r"^\[\d+\]\d+$",
            r": \[\d+\]New request tokens: ",
        ),
        *(
            r": Output token is: \d+$",
            r"\[Done\] guid\(\d+\) final_length\(\d+\)",
            r": Final output: ",
            r"^-+inference finished-+$",
        ),
    ),
    "artifact_speculative.out": (
        *(r"^Num of SSMs: \d+", r"^Register new ssm model with id: \d+", r"^\[ \d+ \]$", r"^sub request num == "),
        *(
            r": Input tree size \(\d+\) Output tree size \(\d+\)",
            r": Input tree: ",
            r": Output tree: ",
            r": Verified: ",
        ),
        *(r": Committed tokens: ", r": New committed: ", r": Number of Verified Tokens = ", r": Output: <s>"),
        *(r"\[Done\] guid\(\d+\) with final length\(\d+\)", r"^SSM KV Cache Size init", r"^LLM KV Cache Size init"),
        *(
            r"^load \d+ tokens for request \d+",
            r"^total prompt in request",
            r"^ssm_cache_size: ",
            r"^max_prompt_load_size",
        ),
        *(
            r"^\[Verify\] Committed Tokens",
            r"^not correct slot$",
            r"^\[0 - [0-9a-f]+\] *\d+\.\d{6} \{3\}\{RequestManager\}: \[Profile\]",
        ),
    ),
    "specscheduler.out": (
        r"^Request \d+ profiling:",
        r"^SSM decoding steps: ",
        r"^\[Profiling Statistics\]",
        r"slo_attainment",
    ),
}
"""Forms of lines that the artifact and its relatives print; all but profiles have to be passed over."""


@pytest.mark.parametrize("name", LINE_FORMS)
def test_the_golden_logs_hold_every_form_of_line(name: str) -> None:
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert [form for form in LINE_FORMS[name] if not re.search(form, text, re.MULTILINE)] == []


def test_profiles_stand_among_everything_else_that_the_artifact_prints() -> None:
    log = read_golden("artifact_speculative.out")
    assert latencies_us(log) == {1000358: 9968723.0}
    assert (log.num_damaged, log.num_duplicates, log.num_unmeasured) == (0, 0, 0)
    log = read_golden("artifact_incremental.out")
    assert latencies_us(log) == {1000000: 2200000.0, 1000001: 3200000.0}
    # One in a prompt, one in an answer; the original's pattern takes both for requests.
    assert (log.num_in_text, log.num_damaged, log.num_duplicates) == (2, 0, 0)


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
    # Cut at 1000002, contradiction at 1000004, cut tag, cut at the end of the file.
    assert log.num_damaged == 4
    assert log.num_in_text == 1


def test_an_entry_whose_messages_beginning_is_cut_is_damage() -> None:
    profile = "[Profile] guid(1) llm_decoding_steps(2) start(1.0) finish(6.0) latency(5.0)\n"
    prefix = "[0 - 7f3940034000]    1.000001 {3}{RequestManager}: "
    log = read_profile_log(f"{prefix}Output token is: 13\n{prefix[30:]}{profile}{prefix}{profile}")
    assert (len(log.entries), log.num_damaged, log.num_in_text) == (1, 1, 0)


# Not the damaged one: a line that contradicts itself no longer does once half of it is gone.
@pytest.mark.parametrize("name", sorted({path.name for path in GOLDEN.glob("*.out")} - {"damaged.out"}))
def test_every_cut_of_a_log_is_read_without_an_error(name: str) -> None:
    """What is left says nothing that the whole does not say: a number cut short is never taken for a number."""
    text = (GOLDEN / name).read_text(encoding="utf-8")
    whole = latencies_us(read_profile_log(text))
    # Before its first message a log cannot be told from a file without messages, where any tag would count.
    begins = text.index("{RequestManager}: ") + 18 if "{RequestManager}: " in text else 0
    for length in range(begins, len(text)):
        cut = latencies_us(read_profile_log(text[:length]))
        assert cut.items() <= whole.items(), text[:length][-80:]


def test_a_log_that_stopped_before_any_profile_takes_none_from_a_prompt() -> None:
    text = (GOLDEN / "artifact_incremental.out").read_text(encoding="utf-8")
    log = read_profile_log(text[: text.index("[Done]")])
    assert (log.entries, log.num_damaged, log.num_in_text) == ((), 0, 1)


def test_a_negative_latency_is_damage() -> None:
    log = read_profile_log("[Profile] guid(1) llm_decoding_steps(2) latency(-5.0)\n")
    assert (log.entries, log.num_damaged) == ((), 1)


def test_empty_log() -> None:
    assert read_profile_log("") == ProfileLog((), 0, 0, 0)
