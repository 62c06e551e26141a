"""Reader of the artifact's ``.txt`` files, whose ``end-to-end latency`` is a running sum over all finished requests.

end-to-end latency: 9968723.000        microseconds, this request's and all before it
num decoding steps: 116
token IDs: 1,14350,263
<s> the text, over any number of lines and without a newline at its end
"""

from __future__ import annotations

import re
from itertools import pairwise

from data_parsing.original.profile_lines import ProfileEntry, ProfileLog, read_profile_log

_HEAD = re.compile(r"end-to-end latency: ")
_BLOCK = re.compile(r"end-to-end latency: (\d+\.\d+)\nnum decoding steps: (\d+)\ntoken IDs: [\d,]*\n")


def read_text_log(text: str) -> ProfileLog:
    """The requests of a ``.txt`` file in either form: with running sums, or flexflow-serve's with profile lines.

    A file whose sum falls, or that is cut inside, was appended to by a second run and cannot be told apart: nothing of
    it counts. A cut at its end costs the last request only.
    """
    blocks, heads = [*_BLOCK.finditer(text)], [*_HEAD.finditer(text)]
    if not heads:
        return read_profile_log(text)
    sums_us = [0.0, *(float(block[1]) for block in blocks)]
    latencies_us = [after - before for before, after in pairwise(sums_us)]
    is_whole = [block.start() for block in blocks] == [head.start() for head in heads[: len(blocks)]]
    if not is_whole or min(latencies_us, default=0.0) < 0:
        return ProfileLog((), 0, 0, num_damaged=len(heads))
    entries = (
        # In order of completion, and without an id.
        ProfileEntry(number, latency_us, num_target_steps=int(block[2]))
        for number, (block, latency_us) in enumerate(zip(blocks, latencies_us, strict=True))
    )
    return ProfileLog(tuple(entries), 0, 0, num_damaged=len(heads) - len(blocks))
