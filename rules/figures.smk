"""Figures from CSV tables, and from nothing else."""

FIGURES = expand(
    "{results}/figures/{figure}.{suffix}",
    results=RESULTS,
    figure=["server_latency", "server_speedup", "offloading_latency", "offloading_speedup", "tree_sizes", "time_split"],
    suffix=["pdf", "png"],
)


rule draw_figures:
    """Draw every figure, with what is missing named in it."""
    input:
        csv=rules.parse.output,
        published=sorted(str(path) for path in Path("paper").glob("*.csv")),
        sources=sources("figures"),
    output:
        FIGURES,
    log:
        f"{LOGS}/figures.log",
    conda:
        "../envs/figures.yaml"
    params:
        csv=lambda wildcards, input: Path(input.csv[0]).parent,
        figures=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m figures --csv-dir {params.csv:q} --output-dir {params.figures:q} > {log:q} 2>&1"
