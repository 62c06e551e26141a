"""Tensor operations of a decoder; each a function or a small weight holder, none knows a model."""
