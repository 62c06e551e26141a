"""Errors that are the caller's to mend; a damaged record is not among them, it is a row with its status."""


class ParsingError(Exception):
    """An input or output place that parsing cannot work with, told in one line."""
