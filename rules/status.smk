"""A look at what is there."""


rule status:
    """Print which records are done, failed or missing, as the records themselves tell, and the figures there are."""
    input:
        plan=PLANS,
    log:
        f"{LOGS}/status.log",
    conda:
        "../envs/parsing.yaml"
    params:
        raw=f"{RESULTS}/raw",
        run=lambda wildcards: run_command(),
        figures=figures_in_words,
    shell:
        "(python -m data_parsing status --plan {input.plan:q} --raw-dir {params.raw:q}"
        " --run-command {params.run:q}"
        " && echo {params.figures:q}) 2>&1 | tee {log:q}"
