"""Figures that the paper has not: why speculation pays, or does not."""
