"""Errors that are the caller's to mend."""


class FigureError(Exception):
    """A table or an output place that figures cannot work with, told in one line."""
