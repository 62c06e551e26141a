"""The artifact's basic test, with outputs that are really looked at."""


rule check_modes:
    """Run every decoding mode and compare what comes out; prints "Test passed!" only then."""
    input:
        wheel=WHEEL,
        machine=MACHINE,
        models=f"{RESULTS}/models_checked",
        cluster=PLANNED.cluster.before_jobs,
        prompts=PLANNED.basic_test_prompts,
        script="basic_test.py",
    output:
        touch(f"{RESULTS}/basic_test/passed"),
    log:
        f"{LOGS}/basic_test.log",
    # Before the experiments: a broken engine shows in half a minute.
    priority: 50
    conda:
        "../envs/engine.yaml"
    threads: workflow.cores
    # Of launchers under a scheduler; elsewhere there are none of them.
    resources:
        mpi=lambda wildcards: PLANNED.basic_test_resource("mpi"),
        nodes=lambda wildcards: PLANNED.basic_test_resource("nodes"),
        tasks=lambda wildcards: PLANNED.basic_test_resource("tasks"),
        slurm_extra=lambda wildcards: PLANNED.basic_test_resource("slurm_extra"),
    params:
        target=PLANNED.basic_test.target.path,
        draft=PLANNED.basic_test.drafts[0].path,
        streamed=[PLANNED.basic_test_streamed.target.path, PLANNED.basic_test_streamed.drafts[0].path],
        folder=lambda wildcards, output: Path(output[0]).parent,
        degrees=PLANNED.basic_test_degrees,
        launch=PLANNED.basic_test_launch_words,
    message:
        f"basic test (takes up to {PLANNED.budgets_minutes['basic_test']:g} minutes on the laptop platform)"
    # exec and tied: the test is Snakemake's own child and ends when Snakemake is killed.
    # tee outlives a ctrl-C so that the last words reach the log.
    shell:
        "exec python -m rules.tied $PPID python {input.script:q}"
        " --target {params.target:q} --draft {params.draft:q} --prompts {input.prompts:q}"
        " --streamed {params.streamed:q}"
        " --output-dir {params.folder:q} --degrees {params.degrees:q} --launch {params.launch:q}"
        " > >(tee -i {log:q}) 2>&1"
