"""Errors that are the caller's to mend."""


class ReportError(Exception):
    """An input or output place that the report cannot work with, told in one line."""
