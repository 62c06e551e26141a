"""A look at what is there."""


def drawn_figures(wildcards):
    """A line per figure that exists, and whether a record has come after it."""
    records = [meta.stat().st_mtime for meta in Path(RESULTS, "raw").glob("*.meta.json")]
    lines = []
    for figure in map(Path, FIGURES):
        if figure.suffix == ".png" and figure.exists():
            is_old = figure.stat().st_mtime < max(records, default=0)
            lines.append(f"figure: {figure}" + (" (older than the records: snakemake figures)" if is_old else ""))
    return lines


rule status:
    """Print which records are done, failed or missing, as the records themselves tell, and the figures there are."""
    input:
        plan=PLANNED.plan_file("server_gpu"),
    log:
        f"{LOGS}/status.log",
    conda:
        "../envs/parsing.yaml"
    params:
        raw=f"{RESULTS}/raw",
        run=lambda wildcards: run_command(),
        figures=drawn_figures,
    shell:
        "(python -m data_parsing status --plan {input.plan:q} --raw-dir {params.raw:q}"
        " --run-command {params.run:q}"
        '; for figure in {params.figures:q}; do echo "$figure"; done) 2>&1 | tee {log:q}'
