"""Figures: the CSV tables of a platform become PDF and PNG files that say what they show and what is missing."""
