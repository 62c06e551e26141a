"""The models and prompts that experiments read."""


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
