"""Raw counts and microseconds of a run, and the files they are written to. Rates are computed downstream."""
