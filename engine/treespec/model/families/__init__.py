"""Families: facts of a checkpoint and a decoder each, and the registry that knows them."""
