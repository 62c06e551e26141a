"""Errors that are the user's to mend; everything else is ours and asserts."""

import re


class TreespecError(Exception):
    """A user's mistake, told as: what is wrong, where, received, allowed, what to do."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        received: object = None,
        allowed: object = None,
        fix: str | None = None,
    ) -> None:
        parts = [what]
        if where is not None:
            parts.append(f"where: {where}")
        if received is not None:
            parts.append(f"received: {received}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if fix is not None:
            parts.append(f"fix: {fix}")
        # One line, whatever was quoted: a library's message may hold several.
        super().__init__(re.sub(r"\s*\n\s*", " ", "; ".join(parts).strip()))


class ConfigError(TreespecError):
    """A configuration that cannot be run as written."""


class CheckpointError(TreespecError):
    """A model folder that is missing, damaged or of an unsupported kind."""


class PromptError(TreespecError):
    """A prompt or prompt file that cannot be served."""


class InputFileError(TreespecError):
    """An input file that is missing or cannot be read."""


class CapacityError(TreespecError):
    """Work that does not fit the memory or the cache it was given."""


class OutputError(TreespecError):
    """A place that results cannot be written to."""
