"""The paper's claims: a verdict on each from the tables, and the audit that the claim of losslessness rests on."""

import shutil

AUDIT = f"{RESULTS}/audit"
CLAIMS = f"{RESULTS}/claims.csv"


rule audit_losslessness:
    """Enumerate every verifier's outcomes and sample with the shipped models; leaves the marker only if all holds."""
    input:
        wheel=WHEEL,
        plugins=PLANNED.plugin_files(),
        machine=MACHINE,
    output:
        touch(f"{AUDIT}/passed"),
    log:
        f"{LOGS}/audit_losslessness.log",
    conda:
        "../envs/engine.yaml"
    threads: workflow.cores
    # The report is a record: it stays if a promise is broken, when Snakemake would delete an output.
    params:
        report=f"{AUDIT}/losslessness.json",
        plugins=[word for path in PLANNED.plugin_files() for word in ("--plugin", path)],
    # exec and tied: the audit is Snakemake's own child and ends when Snakemake is killed.
    shell:
        "exec python -m rules.tied $PPID treespec audit --samples 200 --max-new-tokens 16 --threads {threads}"
        " {params.plugins:q} --output {params.report:q} > {log:q} 2>&1"


rule judge_claims:
    """Hold every claim of the paper against the tables; starts no experiment."""
    input:
        csv=rules.parse.output,
        claims="paper/claims.yaml",
        platform=PLANNED.platform_file,
        sources=sources("claims"),
    output:
        report(CLAIMS, category="Claims", caption="../report/captions/claims.rst"),
        f"{RESULTS}/claims.md",
    log:
        f"{LOGS}/judge_claims.log",
    conda:
        "../envs/claims.yaml"
    params:
        csv=lambda wildcards, input: Path(input.csv[0]).parent,
        paper=lambda wildcards, input: Path(input.claims).parent,
        verdicts=lambda wildcards, output: Path(output[0]).parent,
        run=lambda wildcards: run_command().replace("{experiment}_experiments", "{target}"),
    shell:
        "python -m claims --csv-dir {params.csv:q} --paper-dir {params.paper:q} --platform-file {input.platform:q}"
        " --output-dir {params.verdicts:q} --run-command {params.run:q} > {log:q} 2>&1"


rule claims:
    """Print the verdict on every claim of the paper, from the records that exist."""
    input:
        CLAIMS,
    log:
        f"{LOGS}/claims.log",
    conda:
        "../envs/claims.yaml"
    params:
        strict="",
        width=shutil.get_terminal_size((160, 24)).columns,
    shell:
        "COLUMNS={params.width} python -m claims show --claims {input:q} {params.strict} 2>&1 | tee {log:q}"


use rule claims as claims_strict with:
    log:
        f"{LOGS}/claims_strict.log",
    params:
        strict="--strict",
        width=shutil.get_terminal_size((160, 24)).columns,
