"""One job per placement: an engine process that serves all scenarios of one set of models and ranks.

REQUIRED INPUTS: results/<platform>/jobs/<placement>.yaml, written while the Snakefile is read
OUTPUTS: the marker results/<platform>/ok/<placement>.<fingerprint>. The records in results/<platform>/raw/ are not
declared: Snakemake deletes declared outputs before it runs a rule again.
"""


rule check_jobs:
    """Ask the engine, before any of it runs, whether planned drafters and verifiers fit, and whether prompts suffice."""
    input:
        jobs=PLANNED.job_files(),
        plugins=PLANNED.plugin_files(),
        prompts=PLANNED.prompt_files(),
        machine=ancient(MACHINE),
    output:
        touch(f"{RESULTS}/jobs_checked"),
    log:
        f"{LOGS}/check_jobs.log",
    conda:
        "../envs/engine.yaml"
    shell:
        "treespec check {input.jobs:q} > {log:q} 2>&1"


rule placement:
    """Measure what is still missing of one placement; leaves the marker only if every record is complete."""
    input:
        job=f"{RESULTS}/jobs/{{placement}}.yaml",
        machine=MACHINE,
        models=f"{RESULTS}/models_checked",
        # Another experiment's job file is no reason to measure anew.
        jobs=ancient(f"{RESULTS}/jobs_checked"),
        cluster=PLANNED.cluster.before_jobs,
    output:
        touch(f"{RESULTS}/ok/{{placement}}.{{fingerprint}}"),
    log:
        f"{LOGS}/{{placement}}.{{fingerprint}}.log",
    conda:
        "../envs/engine.yaml"
    # All cores: two placements never run at once. No benchmark: its sampling would run beside what is being measured.
    threads: workflow.cores
    # Of launchers under a scheduler; elsewhere there are none of them.
    resources:
        mpi=lambda wildcards: PLANNED.launch_resource(wildcards.placement, "mpi"),
        nodes=lambda wildcards: PLANNED.launch_resource(wildcards.placement, "nodes"),
        tasks=lambda wildcards: PLANNED.launch_resource(wildcards.placement, "tasks"),
        slurm_extra=lambda wildcards: PLANNED.launch_resource(wildcards.placement, "slurm_extra"),
    params:
        launch=lambda wildcards: PLANNED.launch_words(wildcards.placement),
        raw=f"{RESULTS}/raw",
        scenarios=lambda wildcards: PLANNED.scenario_names(wildcards.placement),
        budget=lambda wildcards: PLANNED.budget_minutes(wildcards.placement),
    message:
        "{wildcards.placement} (its experiment takes up to {params.budget:g} minutes on the laptop platform): {params.scenarios}"
    # exec and tied: whatever starts the engine is Snakemake's own child and ends when Snakemake is killed.
    # tee outlives a ctrl-C so that the last words reach the log.
    shell:
        "exec python -m rules.tied $PPID {params.launch:q}"
        " --config {input.job:q} --output-dir {params.raw:q} > >(tee -i {log:q}) 2>&1"
