"""The models and prompts that experiments read."""


rule download_models:
    """Fetch what the platform has from the hub for the sizes in use: a call of its own, before the experiments' plan.

    REQUIRED INPUTS: the network, unless everything is here; HF_TOKEN for gated repositories
    OUTPUTS: none by name; the model folders of the platform file, and models/hub.lock.json. Removing a declared output
    before a rerun, as Snakemake does, would throw away what has been fetched.
    """
    input:
        platform=PLANNED.platform_file,
    log:
        f"{LOGS}/download_models.log",
    conda:
        "../envs/engine.yaml"
    params:
        sizes=PLANNED.sizes(),
    shell:
        "exec python -m rules.tied $PPID python download_models.py --platform {input.platform:q} --sizes {params.sizes:q}"
        " > >(tee -i {log:q}) 2>&1"


rule check_models:
    """Compare models and prompts with the checksums that lie beside them (a folder of one's own need not have any)."""
    input:
        machine=ancient(MACHINE),
        files=PLANNED.data_files(),
        checksums=PLANNED.checksum_files(),
    output:
        touch(f"{RESULTS}/models_checked"),
    log:
        f"{LOGS}/check_models.log",
    conda:
        "../envs/engine.yaml"
    shell:
        "(for list in {input.checksums:q}; do"
        ' (cd "$(dirname "$list")" && sha256sum --check --quiet "$(basename "$list")"); done)'
        " > {log:q} 2>&1"
