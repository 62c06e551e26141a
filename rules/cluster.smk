"""The hosts of a platform that launches by ssh: made if they are embedded, brought everything, checked.

REQUIRED INPUTS: the cluster.yaml that the platform names; an embedded cluster makes its own
OUTPUTS: markers that last as long as the call that made them. A call that has something to run goes through all three
rules, which are quick where nothing has changed; a call that has nothing to run starts none of them.
"""


rule start_embedded_cluster:
    """Make the nodes on this machine, unless they are up."""
    output:
        temp(PLANNED.cluster.up),
    log:
        f"{LOGS}/cluster_up.log",
    conda:
        "../envs/cluster.yaml"
    params:
        folder=PLANNED.cluster.folder or no_cluster,
    # Not tied to Snakemake: the nodes outlive the call.
    shell:
        "(python -m cluster up --folder {params.folder:q} && echo $PPID > {output:q}) > {log:q} 2>&1"


rule provision_cluster:
    """Bring the hosts what they lack: packages, the engine, models, prompts and plugins."""
    input:
        up=PLANNED.cluster.before_provisioning,
        machine=MACHINE,
        models=f"{RESULTS}/models_checked",
        wheel=WHEEL,
        plugins=PLANNED.plugin_files(),
    output:
        temp(PLANNED.cluster.provisioned),
    log:
        f"{LOGS}/cluster_provision.log",
    conda:
        "../envs/cluster.yaml"
    params:
        cluster=PLANNED.cluster.file,
        models=PLANNED.model_folders(),
        prompts=PLANNED.prompt_files(),
    # The marker first: exec leaves no shell to write it later, and Snakemake removes it where provisioning fails.
    shell:
        "echo $PPID > {output:q}; exec python -m rules.tied $PPID"
        " python -m cluster provision --cluster {params.cluster:q} --wheel {input.wheel:q}"
        " --models {params.models:q} --prompts {params.prompts:q} --plugins {input.plugins:q} > >(tee -i {log:q}) 2>&1"


rule check_cluster:
    """Look at every host and the network between them; whatever is lacking is told with its fix, and nothing starts."""
    input:
        PLANNED.cluster.provisioned,
    output:
        temp(PLANNED.cluster.checked),
    log:
        f"{LOGS}/cluster_check.log",
    conda:
        "../envs/cluster.yaml"
    # All cores: bandwidth is measured.
    threads: workflow.cores
    params:
        cluster=PLANNED.cluster.file,
        models=PLANNED.model_folders(),
        report=f"{RESULTS}/cluster_check.json",
    shell:
        "echo $PPID > {output:q}; exec python -m rules.tied $PPID"
        " python -m cluster check --cluster {params.cluster:q} --models {params.models:q} --output {params.report:q}"
        " > >(tee -i {log:q}) 2>&1"


rule cluster_down:
    """Take the embedded cluster down."""
    log:
        f"{LOGS}/cluster_down.log",
    conda:
        "../envs/cluster.yaml"
    params:
        folder=PLANNED.cluster.folder or no_cluster,
    shell:
        "python -m cluster down --folder {params.folder:q} > {log:q} 2>&1"
