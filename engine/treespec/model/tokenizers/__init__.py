"""Tokenizers of model folders, in every form that they come in."""
