"""Checkpoints and decoders."""
