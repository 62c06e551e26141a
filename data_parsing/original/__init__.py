"""The original artifact's own outputs."""
