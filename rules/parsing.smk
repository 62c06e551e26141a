"""Raw records to CSV tables."""

TABLES = [*(table for tables in PLANNED.tables.values() for table in tables), "time_split", "token_equality"]


rule parse:
    """Write the tables from the records that exist; missing, failed and superseded ones are listed in them."""
    input:
        plan=PLANS,
        records=records,
        sources=sources("data_parsing"),
    output:
        expand("{results}/csv/{table}.csv", results=RESULTS, table=TABLES),
    log:
        f"{LOGS}/parse.log",
    conda:
        "../envs/parsing.yaml"
    params:
        raw=f"{RESULTS}/raw",
        csv=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m data_parsing"
        " --plan {input.plan:q} --raw-dir {params.raw:q} --output-dir {params.csv:q} > {log:q} 2>&1"
