"""The paper's claims held against the tables: published, measured, verdict."""
