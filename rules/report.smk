"""One page with everything that is there, and the results folder described as an RO-Crate."""


rule report:
    """Write report.html and ro-crate-metadata.json from tables, figures, verdicts and records; starts no experiment."""
    input:
        tables=rules.parse.output,
        figures=FIGURES,
        claims=CLAIMS,
        configuration=["config/config.yaml", *sorted(map(str, Path("config/experiments").glob("*.yaml")))],
        plan=PLANS,
        platform=PLANNED.platform_file,
        citation="CITATION.cff",
        records=PLANNED.records_state,
        sources=sources("report"),
        parts=sorted(map(str, Path("report/parts").glob("*"))),
    output:
        page=report(f"{RESULTS}/report.html", category="Report", caption="../report/captions/page.rst"),
        crate=f"{RESULTS}/ro-crate-metadata.json",
    log:
        f"{LOGS}/report.log",
    conda:
        "../envs/report.yaml"
    params:
        results=lambda wildcards, output: Path(output.page).parent,
        run=lambda wildcards: run_command().replace("{experiment}_experiments", "{target}"),
    shell:
        "python -m report --results {params.results:q} --output {output.page:q} --crate"
        " --citation {input.citation:q} --run-command {params.run:q} > {log:q} 2>&1"
