"""Figures from CSV tables, and from nothing else."""

# The names in figures/gallery.py, which a test compares: rules import nothing that they call.
FIGURE_NAMES = [
    # The SpecInfer paper's figures 7 to 11 and tables 1 to 3.
    "server_latency",
    "server_speedup",
    "offloading_latency",
    "offloading_speedup",
    "tokens_per_step_cdf",
    "width_latency",
    "parallel_decoding",
    "rank_success",
    "tokens_per_step",
    "sampling_algorithms",
    # What a researcher asks next.
    "tree_sizes",
    "time_split",
    "acceptance_by_depth",
    "accepted_lengths",
    "tree_size_acceptance",
    "verify_cost",
    "predicted_speedup",
    "break_even",
]
FIGURES = expand(
    "{results}/figures/{figure}.{suffix}",
    results=RESULTS,
    figure=FIGURE_NAMES,
    suffix=["pdf", "png"],
)


rule draw_figures:
    """Draw every figure, with what is missing named in it."""
    input:
        csv=rules.parse.output,
        published=sorted(str(path) for path in Path("paper").glob("*.csv")),
        sources=sources("figures"),
    output:
        report(
            [figure for figure in FIGURES if figure.endswith(".png")],
            category="Figures",
            caption="../report/captions/figure.rst",
        ),
        [figure for figure in FIGURES if figure.endswith(".pdf")],
    log:
        f"{LOGS}/figures.log",
    conda:
        "../envs/figures.yaml"
    params:
        csv=lambda wildcards, input: Path(input.csv[0]).parent,
        figures=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m figures --csv-dir {params.csv:q} --output-dir {params.figures:q} > {log:q} 2>&1"
