"""The text forms of the original artifact, so that its parsers read our files.

Two of its flaws are not repeated: a block's latency is that of its own request (there: a running sum), and every
block ends with a newline.
"""

from __future__ import annotations

from collections.abc import Sequence

from treespec.metrics.counts import RequestProfile


def out_line(guid: int, profile: RequestProfile) -> str:
    """A ``[Profile]`` line of the request manager's log; microseconds."""
    return (
        f"[0 - {0:x}]{profile.finish_us / 1e6:12.6f} {{3}}{{RequestManager}}: [Profile] guid({guid}) "
        f"llm_decoding_steps({profile.num_target_steps}) start({profile.start_us:.1f}) "
        f"finish({profile.finish_us:.1f}) latency({profile.latency_us:.1f})\n"
    )


def txt_block(profile: RequestProfile, token_ids: Sequence[int], text: str) -> str:
    """A block of the output file: latency, target steps, ids of prompt and output, decoded text."""
    return (
        f"end-to-end latency: {profile.latency_us:.3f}\n"
        f"num decoding steps: {profile.num_target_steps}\n"
        f"token IDs: {','.join(map(str, token_ids))}\n"
        f"{text}\n"
    )
