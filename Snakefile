# snakemake <target>: all | basic_test | <experiment>_experiments (config/experiments/) | figures | claims | report | status | engine
#                     download_models | cluster_provision | cluster_check | cluster_down | cluster_launch | cluster_terminate
# What runs is said in config/; rules/scenarios.py turns it into placements and scenarios.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/engine.smk"
include: "rules/models.smk"
include: "rules/cluster.smk"
include: "rules/aws.smk"
include: "rules/basic_test.smk"
include: "rules/experiments.smk"
include: "rules/peers.smk"
include: "rules/parsing.smk"
include: "rules/figures.smk"
include: "rules/original.smk"
include: "rules/claims.smk"
include: "rules/report.smk"
include: "rules/status.smk"


rule all:
    """What is run; figures are a call of their own, because they draw the records that exist when it starts."""
    default_target: True
    input:
        f"{RESULTS}/basic_test/passed",
        f"{AUDIT}/passed",
        [markers(experiment) for experiment in PLANNED.sweeps],


rule basic_test:
    """Every decoding mode answers as it should."""
    input:
        f"{RESULTS}/basic_test/passed",


for experiment in PLANNED.sweeps:

    rule:
        """Every record of an experiment on this platform."""
        name:
            f"{experiment}_experiments"
        input:
            markers(experiment),


rule figures:
    """Every figure, from the records that exist, or from the logs in raw_dir; starts no experiment."""
    input:
        ORIGINAL_FIGURES if RAW_DIR else FIGURES,


rule engine:
    """The engine's wheel for other nodes, and a check of this machine."""
    input:
        WHEEL,
        MACHINE,


rule models:
    """The models and prompts this platform uses are there and are what they should be."""
    input:
        f"{RESULTS}/models_checked",


rule cluster_provision:
    """The hosts of the platform's cluster have the engine, the models and the prompts; made first if it is embedded."""
    input:
        PLANNED.cluster.provisioned if PLANNED.cluster.file else no_cluster,


rule cluster_check:
    """They are provisioned, and have passed every check."""
    input:
        PLANNED.cluster.checked if PLANNED.cluster.file else no_cluster,
