"""Programs of the project's names that do next to nothing, to look at what the rules call, when, and from where.

A virtual environment of its own carries the `treespec` of this file: rules take programs from the environment that
Snakemake runs in. Parsing and figures are packages in the project folder, which a stand-in replaces.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rules.table_names import SHARED_TABLES
from tests.workflow.project import LEFT_OUT, REPOSITORY, Project

TREESPEC = """
import json, os, pathlib, socket, sys
command, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
parent = pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_text().replace("\\0", " ")
with open("calls.txt", "a") as calls:
    print(command, "from", parent, file=calls)
if command == "describe":
    gpus = [{"computes": True, "memory_mib": int(mib)} for mib in os.environ.get("GPUS", "").split()]
    print(json.dumps({"cpu": {"computes": True, "memory_mib": 8192}, "gpus": gpus}))
elif command == "check":
    pass
elif "CONNECT" in os.environ:
    socket.create_connection(("192.0.2.1", 80), timeout=0.1)
elif "FAIL" in os.environ and os.environ["FAIL"] in options["--config"]:
    sys.exit("this run was told to fail")
else:
    raw = pathlib.Path(options["--output-dir"])
    raw.mkdir(parents=True, exist_ok=True)
    for row in json.loads((raw.parent / "plan/server_gpu.json").read_text())["scenarios"]:
        if row["mode"] == "transformers":
            continue
        meta = {"fingerprint": row["fingerprint"], "status": "ok", "num_rows": 1}
        (raw / f"{row['scenario']}.jsonl").write_text("{}\\n")
        (raw / f"{row['scenario']}.meta.json").write_text(json.dumps(meta))
"""

PEER_SERVER = """
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open("calls.txt", "a") as calls:
    print("peer", options["--peer"], file=calls)
raw = pathlib.Path(options["--output-dir"])
for row in json.loads((raw.parent / "plan/server_gpu.json").read_text())["scenarios"]:
    if row["mode"] == options["--peer"]:
        meta = {"fingerprint": row["fingerprint"], "status": "ok", "num_rows": 1}
        (raw / f"{row['scenario']}.jsonl").write_text("{}\\n")
        (raw / f"{row['scenario']}.meta.json").write_text(json.dumps(meta))
"""

CLUSTER = """
import json, os, pathlib, sys
with open("calls.txt", "a") as calls:
    print(*sys.argv[1:], file=calls)
if os.environ.get("FAIL_CLUSTER") == sys.argv[1]:
    sys.exit(1)
if sys.argv[1] == "run":
    options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    raw, placement = pathlib.Path(options["--output-dir"]), pathlib.Path(options["--config"]).stem
    raw.mkdir(parents=True, exist_ok=True)
    for row in json.loads((raw.parent / "plan/server_gpu.json").read_text())["scenarios"]:
        if row["placement"] == placement:
            meta = {"fingerprint": row["fingerprint"], "status": "ok", "num_rows": 1}
            (raw / f"{row['scenario']}.jsonl").write_text("{}\\n")
            (raw / f"{row['scenario']}.meta.json").write_text(json.dumps(meta))
"""

PARSING = """
import pathlib, sys
words = sys.argv[1:]
options = {words[i]: words[i + 1] for i in range(len(words)) if words[i] in ("--raw-dir", "--output-dir")}
folder = pathlib.Path(options["--output-dir"])
names = sorted(path.name for path in pathlib.Path(options["--raw-dir"]).glob("*.meta.json"))
for name in ("server_small", *EXPERIMENTS, *SHARED_TABLES):
    (folder / f"{name}.csv").write_text("\\n".join(names))
"""

FIGURES = """
import pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
for name in FIGURE_NAMES:
    for suffix in ("pdf", "png"):
        text = (pathlib.Path(options["--csv-dir"]) / "server.csv").read_text()
        (pathlib.Path(options["--output-dir"]) / f"{name}.{suffix}").write_text(text)
"""


def _listed(rules: str, name: str) -> list[str]:
    """The texts in a list that a file of rules begins a line with, comments left out."""
    text = (REPOSITORY / "rules" / rules).read_text()
    (items,) = re.findall(rf"^{name} = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return re.findall(r'"(\w+)"', re.sub("#.*", "", items))


def put_stand_ins(project: Project) -> None:
    """Replace the engine, the peer, the cluster, parsing and figures of a project by the programs above."""
    venv = project.folder / "venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("lib", "pyvenv.cfg"):
        (venv / name).symlink_to(Path(sys.prefix, name))
    python = venv / "bin/python"
    python.symlink_to(sys.executable)
    treespec = venv / "bin/treespec"
    treespec.write_text(f"#!{python}{TREESPEC}")
    treespec.chmod(0o755)
    tables = f"EXPERIMENTS, SHARED_TABLES = {['server', *LEFT_OUT]}, {SHARED_TABLES}"
    programs = (
        ("data_parsing/__main__", tables + PARSING),
        ("figures/__main__", f"FIGURE_NAMES = {_listed('figures.smk', 'FIGURE_NAMES')}" + FIGURES),
        ("benchmarks/peer_server", PEER_SERVER),
        ("cluster/__main__", CLUSTER),
    )
    for name, code in programs:
        path = project.folder / f"{name}.py"
        if path.parent.is_symlink():
            path.parent.unlink()
        path.parent.mkdir()
        path.write_text(code)
    for name in ("__init__.py", "peer_identity.py"):  # what the planner imports
        (project.folder / "benchmarks" / name).symlink_to(REPOSITORY / "benchmarks" / name)
