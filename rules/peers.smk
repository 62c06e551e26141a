"""One job per placement and peer: a third party serves the incremental scenarios, in a process of its own.

REQUIRED INPUTS: results/<platform>/jobs/<placement>.yaml, and the placement's marker: ours are measured first
OUTPUTS: the marker results/<platform>/ok/<placement>-<peer>.<fingerprint>; records as those of rule placement.
"""


rule peer:
    """Measure what is still missing of a peer's records; leaves the marker only if every one is complete."""
    input:
        job=f"{RESULTS}/jobs/{{placement}}.yaml",
        machine=MACHINE,
        models=f"{RESULTS}/models_checked",
        ours=lambda wildcards: PLANNED.marker_named(wildcards.placement),
    output:
        touch(f"{RESULTS}/ok/{{placement}}-{{peer}}.{{fingerprint}}"),
    log:
        f"{LOGS}/{{placement}}-{{peer}}.{{fingerprint}}.log",
    conda:
        "../envs/engine.yaml"
    # All cores: nothing else is measured meanwhile.
    threads: workflow.cores
    params:
        raw=f"{RESULTS}/raw",
        scenarios=lambda wildcards: PLANNED.scenario_names(f"{wildcards.placement}-{wildcards.peer}"),
    message:
        "{wildcards.placement} by {wildcards.peer}: {params.scenarios}"
    # exec and tied: as in rule placement.
    shell:
        "exec python -m rules.tied $PPID python -m benchmarks.peer_server --peer {wildcards.peer:q}"
        " --config {input.job:q} --output-dir {params.raw:q} > >(tee -i {log:q}) 2>&1"
