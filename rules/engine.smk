"""A look at this machine before anything else, and the engine as other machines need it. Installs nothing anywhere."""

VERSION = tomllib.loads(Path("engine/pyproject.toml").read_text())["project"]["version"]
WHEEL = f"{RESULTS}/engine/treespec-{VERSION}-py3-none-any.whl"
MACHINE = f"{RESULTS}/machine.json"


rule check_machine:
    """Compare the platform with this machine and write down what it is; what it lacks is one line, and nothing starts."""
    input:
        platform=PLANNED.platform_file,
    output:
        MACHINE,
    log:
        f"{LOGS}/check_machine.log",
    conda:
        "../envs/engine.yaml"
    params:
        sizes=PLANNED.sizes(),
    shell:
        "python -m rules.machine --platform-file {input.platform:q} --sizes {params.sizes:q} --output {output:q}"
        " > {log:q} 2>&1"


rule engine_wheel:
    """Build the wheel that nodes install; also what tells that the engine's code has changed."""
    input:
        "engine/pyproject.toml",
        sources("engine/treespec"),
        machine=MACHINE,
    output:
        WHEEL,
    log:
        f"{LOGS}/engine_wheel.log",
    conda:
        "../envs/engine.yaml"
    shell:
        '(folder="$(realpath "$(dirname {output:q})")"; cd engine && python -m hatchling build --target wheel --directory "$folder")'
        " > {log:q} 2>&1"
