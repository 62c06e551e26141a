"""A table of CSV per module, and what several of them share."""
