"""The paper's figures and tables, drawn from what was measured here."""
