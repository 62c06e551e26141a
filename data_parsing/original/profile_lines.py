"""Reader of the per-request profile in ``.out`` and ``.txt`` files: ours, the artifact's and its relatives'.

Forms, all in microseconds unless said otherwise (``G`` request id, ``N`` counts, ``T`` times):

    [Profile] guid(G) llm_decoding_steps(N) start(T) finish(T) latency(T)             SpecInfer artifact, and ours
    [Profile] guid(G) decoding_steps(N) start(T) finish(T) latency(T) acc_latency(T)  FlexFlow releases of 2023
    [Profile] guid(G) llm_decoding_steps(N) start(T) finish(T) latency(T) ttft(T)     flexflow-serve, incremental
    [Profile] guid(G) llm_decoding_steps(N) latency(T) ttft(T)                        flexflow-serve, in its .txt
    [Warmup] guid(G) ...                                                              flexflow-serve, not measured
    [Finetuning] guid(G) completed_training_steps(N) loss(X) latency(T)               flexflow-serve, no inference
    Request G profiling: / Decoding time: T ms / Total time: T ms / LLM decoding steps: N / SSM decoding steps: N

The files are what several threads print into: a line may carry the logger's prefix, may be cut, may have other output
in its middle, and a prompt's or answer's text may look like a profile line. Nothing that cannot be trusted enters a
sum: what is lost is counted as damaged, what only looks like an entry by itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_LOGGER_PREFIX = re.compile(r"\[\d+ - [0-9a-f]+\] *\d+\.\d+ \{\d\}\{\w+\}: ")
_PREFIX_END = "}: "  # of a prefix that another thread's output cut in two
_TAG = re.compile(r"\[(Profile|Warmup|Finetuning)\]")
_GUID = re.compile(r" guid\((\d+)\)")
_FIELD = re.compile(r"\b([a-z_]+)\((-?\d+(?:\.\d+)?)\)")
_BLOCK_HEAD = re.compile(r"^Request \d+ profiling:", re.MULTILINE)
_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_BLOCK = re.compile(
    r"^Request (?P<guid>\d+) profiling: *\n"
    rf"Decoding time: {_NUMBER} ?ms\n"
    rf"Total time: (?P<total_ms>{_NUMBER}) ?ms\n"
    r"LLM decoding steps: (?P<steps>\d+)\n",
    re.MULTILINE,
)
_ROUNDING_US = 1.0  # start, finish and latency are printed with one decimal each


@dataclass(frozen=True)
class ProfileEntry:
    """The profile of one finished request; what the file's form does not have is None."""

    guid: int
    latency_us: float
    num_target_steps: int | None = None
    start_us: float | None = None
    finish_us: float | None = None
    first_token_us: float | None = None
    """From registration to the first token, as the file says: the form's speculative mode prints negative values."""


@dataclass(frozen=True)
class ProfileLog:
    """The measured requests of a file, one per guid, and what was left out."""

    entries: tuple[ProfileEntry, ...]
    num_unmeasured: int
    """Warm-up and fine-tuning requests."""
    num_duplicates: int
    """Earlier entries of a guid that came again; the last one counts."""
    num_damaged: int
    """Entries that are cut, contradict themselves or lost their message's beginning."""
    num_in_text: int = 0
    """What looks like an entry in the text of a prompt or an answer: no damage, and no request."""


def read_profile_log(text: str) -> ProfileLog:
    """All profile entries in a text, in order of first appearance."""
    entries: dict[int, ProfileEntry] = {}
    num_found = num_unmeasured = num_damaged = 0
    tags = list(_TAG.finditer(text))
    trusted = _trusted(tags, text)
    untrusted = {*tags} - {*trusted}
    num_beheaded = sum(text.endswith(_PREFIX_END, 0, tag.start()) for tag in untrusted)
    num_damaged += num_beheaded
    for tag, segment in _segments(trusted, text):
        if tag != "Profile":
            num_unmeasured += 1
            continue
        entry = _entry(segment)
        if entry is None:
            num_damaged += 1
        else:
            num_found += 1
            entries[entry.guid] = entry
    for match in _BLOCK.finditer(text):
        num_found += 1
        guid = int(match["guid"])
        entries[guid] = ProfileEntry(guid, float(match["total_ms"]) * 1000, num_target_steps=int(match["steps"]))
    num_damaged += len(_BLOCK_HEAD.findall(text)) - len(_BLOCK.findall(text))
    return ProfileLog(
        tuple(entries.values()),
        num_unmeasured,
        num_duplicates=num_found - len(entries),
        num_damaged=num_damaged,
        num_in_text=len(untrusted) - num_beheaded,
    )


def _trusted(tags: list[re.Match[str]], text: str) -> list[re.Match[str]]:
    """The tags that are the log's own: in a log with prefixes, one without stands in a prompt or an answer."""
    prefix_ends = {prefix.end() for prefix in _LOGGER_PREFIX.finditer(text)}
    return [tag for tag in tags if tag.start() in prefix_ends] if prefix_ends else tags


def _segments(tags: list[re.Match[str]], text: str) -> list[tuple[str, str]]:
    """Each tag's word and what belongs to it: up to the line's end, the next tag or the next log message."""
    limits = sorted({match.start() for match in [*tags, *_LOGGER_PREFIX.finditer(text)]} | {len(text)})
    segments = []
    for tag in tags:
        limit = limits[bisect_right(limits, tag.start())]
        segments.append((tag[1], text[tag.end() : limit].partition("\n")[0]))
    return segments


def _entry(segment: str) -> ProfileEntry | None:
    """The entry in what follows a [Profile] tag, None where it is damaged."""
    guid = _GUID.match(segment)
    if guid is None:
        return None
    fields: dict[str, float] = {}
    for name, value in _FIELD.findall(segment):
        fields.setdefault(name, float(value))
    start, finish, latency = fields.get("start"), fields.get("finish"), fields.get("latency")
    if start is not None and finish is not None:
        # One of the three is redundant: it mends a line cut before its latency and exposes a line mixed of two.
        latency = finish - start if latency is None else latency
        if abs(finish - start - latency) > _ROUNDING_US:
            return None
    if latency is None or latency < 0:
        return None
    num_steps = fields.get("llm_decoding_steps", fields.get("decoding_steps"))
    return ProfileEntry(
        guid=int(guid[1]),
        latency_us=latency,
        num_target_steps=None if num_steps is None else int(num_steps),
        start_us=start,
        finish_us=finish,
        first_token_us=fields.get("ttft"),
    )
