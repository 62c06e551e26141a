"""Figures of someone's outputs of the original artifact: no record of ours, and never beside one."""
