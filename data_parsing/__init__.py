"""Parsing: raw records of a platform become the CSV tables that figures and claims read."""
