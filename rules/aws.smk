"""Machines at AWS, started and ended by name: no other rule depends on these, so that nothing costs money by itself.

REQUIRED INPUTS: config/aws.yaml, made from config/aws.example.yaml
OUTPUTS: config/cluster.yaml, written by cluster_launch and deleted by cluster_terminate. It is not declared: Snakemake
deletes declared outputs before it runs a rule again, and the machines in it would be forgotten while they cost money.
"""

AWS_SETTINGS = "config/aws.yaml"
LAUNCHED_CLUSTER = "config/cluster.yaml"


rule cluster_launch:
    """Start the machines, wait until they answer, write cluster.yaml; costs money until cluster_terminate."""
    log:
        f"{LOGS}/cluster_launch.log",
    localrule: True
    conda:
        "../envs/cluster.yaml"
    params:
        settings=AWS_SETTINGS,
        cluster=LAUNCHED_CLUSTER,
    # exec: a signal reaches the program itself, which then removes what it has started. Not tied to Snakemake's life:
    # a launch that is killed outright cannot do that.
    shell:
        "exec python -m cluster launch --settings {params.settings:q} --cluster {params.cluster:q}"
        " > >(tee -i {log:q}) 2>&1"


rule cluster_terminate:
    """End the machines and everything that was made for them; says what remains."""
    log:
        f"{LOGS}/cluster_terminate.log",
    localrule: True
    conda:
        "../envs/cluster.yaml"
    params:
        settings=AWS_SETTINGS,
    shell:
        "exec python -m cluster terminate --settings {params.settings:q} > >(tee -i {log:q}) 2>&1"
