"""Raw records to CSV tables."""

from rules.table_names import SHARED_TABLES

TABLES = [*(table for tables in PLANNED.tables.values() for table in tables), *SHARED_TABLES]


rule parse:
    """Write the tables from the records that exist; missing, failed and superseded ones are listed in them."""
    input:
        plan=PLANS,
        # Stands for the records, hundreds of files that no rule makes: other ones, another state.
        records=PLANNED.records_state,
        audit=audit_report,
        sources=sources("data_parsing"),
    output:
        expand("{results}/csv/{table}.csv", results=RESULTS, table=TABLES),
    log:
        f"{LOGS}/parse.log",
    conda:
        "../envs/parsing.yaml"
    params:
        raw=f"{RESULTS}/raw",
        audit=f"{RESULTS}/audit",
        csv=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m data_parsing"
        " --plan {input.plan:q} --raw-dir {params.raw:q} --audit-dir {params.audit:q}"
        " --output-dir {params.csv:q} > {log:q} 2>&1"
