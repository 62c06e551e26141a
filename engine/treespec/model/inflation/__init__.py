"""Inflation: enlargements of a checkpoint that compute what it computes."""
