"""Several machines over SSH: checked, provisioned, run on; knows neither the engine nor Snakemake."""
