"""The engine as other machines need it, and a look at the devices of this one. Installs nothing anywhere."""

WHEEL = (
    f"build/treespec-{tomllib.loads(Path('engine/pyproject.toml').read_text())['project']['version']}-py3-none-any.whl"
)
DEVICE_CHECK = f"{RESULTS}/device.json"


rule engine_wheel:
    """Build the wheel that nodes install; also what tells that the engine's code has changed."""
    input:
        "engine/pyproject.toml",
        sources("engine/treespec"),
    output:
        WHEEL,
    log:
        f"{LOGS}/engine_wheel.log",
    conda:
        "../envs/engine.yaml"
    shell:
        '(folder="$PWD/$(dirname {output:q})"; cd engine && python -m hatchling build --target wheel --directory "$folder")'
        " > {log:q} 2>&1"


rule device_check:
    """Compute something on every device and write down what this machine is."""
    output:
        DEVICE_CHECK,
    log:
        f"{LOGS}/device_check.log",
    conda:
        "../envs/engine.yaml"
    shell:
        "treespec describe --output {output:q} > {log:q} 2>&1"
