"""Errors that are the caller's to mend; a claim that cannot be tested is none of them, it is a row with its reason."""


class ClaimError(Exception):
    """A claim, table or place that cannot be worked with, told in one line."""
