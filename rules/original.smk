"""Figures of someone's outputs of the original artifact: `snakemake figures --config raw_dir=FOLDER`.

They go to <results_dir>/original-<name of the folder>-<digits of its path>/, and nothing of ours to them.
"""

import hashlib

RAW_DIR = Path(config["raw_dir"]) if config.get("raw_dir") else None
# Two folders of one name are two sets of results.
RAW_NAME = f"{RAW_DIR.resolve().name}-{hashlib.sha256(bytes(RAW_DIR.resolve())).hexdigest()[:6]}" if RAW_DIR else "none"
ORIGINAL = f"{PLANNED.results.parent}/original-{RAW_NAME}"
ORIGINAL_FIGURES = expand(
    "{original}/figures/{family}_latency.{suffix}",
    original=ORIGINAL,
    family=["server", "offloading"],
    suffix=["pdf", "png"],
)


rule parse_original:
    """Write the artifact's own tables from its .out and .txt files, and one with a row per file."""
    input:
        logs=sorted(str(path) for suffix in ("out", "txt") for path in (RAW_DIR or Path()).glob(f"*.{suffix}")),
        sources=sources("data_parsing"),
    output:
        directory(f"{ORIGINAL}/csv"),
    log:
        f"{ORIGINAL}/logs/parse.log",
    conda:
        "../envs/parsing.yaml"
    params:
        raw=RAW_DIR,
    shell:
        "python -m data_parsing artifact --raw-dir {params.raw:q} --output-dir {output:q} > {log:q} 2>&1"


rule draw_original:
    """Draw figures 7 and 8 from them, with the published range beside the measured bars."""
    input:
        csv=rules.parse_original.output,
        published="paper/figure7_speedup_ranges.csv",
        sources=sources("figures"),
    output:
        ORIGINAL_FIGURES,
    log:
        f"{ORIGINAL}/logs/figures.log",
    conda:
        "../envs/figures.yaml"
    params:
        source=f"folder {RAW_DIR}",
        figures=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "python -m figures.original --csv-dir {input.csv:q} --output-dir {params.figures:q} --source {params.source:q}"
        " > {log:q} 2>&1"
