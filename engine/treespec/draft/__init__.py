"""Drafters: who proposes the tokens that the target verifies. Import from the modules: the lookups need no torch."""
