"""What every test of the workflow starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import (
    LINKED,
    LINKED_PROGRAMS,
    MODELS,
    NUM_PROMPTS,
    NUM_REPEATS,
    REPOSITORY,
    Project,
    tiny_platform,
)

PROMPTS = [f"def {name}(values):\n    " for name in ("add", "sort", "count", "join", "first", "last", "merge", "split")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project with configuration of its own; the models have the right files and no sense in them."""
    for name in LINKED + LINKED_PROGRAMS:
        if (REPOSITORY / name).exists():
            (tmp_path / name).symlink_to(REPOSITORY / name)
    experiments = (f"experiments/{path.name}" for path in (REPOSITORY / "config/experiments").glob("*.yaml"))
    for name in ("config.yaml", *experiments, "platforms/laptop.yaml"):
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((REPOSITORY / "config" / name).read_text())
    (tmp_path / "config/platforms/tiny.yaml").write_text(yaml.safe_dump(tiny_platform(), sort_keys=False))
    for role in ("target", "draft"):
        folder = tmp_path / "models" / role
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(role.encode())
    (tmp_path / "tmp").mkdir()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/few.json").write_text(json.dumps(PROMPTS))
    made = Project(tmp_path)
    made.edit("config.yaml", lambda config: config.update(platform="tiny"))
    return made


@pytest.fixture
def shipped(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with every platform, prompt and model that is shipped; the working directory is inside it."""
    for path in (REPOSITORY / "config/platforms").glob("*.yaml"):
        (project.folder / "config/platforms" / path.name).write_text(path.read_text())
    for path in (REPOSITORY / "prompts").iterdir():
        (project.folder / "prompts" / path.name).symlink_to(path)
    (project.folder / "models/embedded").symlink_to(REPOSITORY / "models/embedded")
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def real(project: Project) -> Project:
    """The shipped models as they are, few tokens, two batch sizes: some seconds for each group of records."""
    sizes = {"small": {"target": {"path": str(MODELS / "target")}, "drafts": [{"path": str(MODELS / "draft")}]}}
    changes = {"batch_sizes": [1, 2], "num_prompts": NUM_PROMPTS, "num_repeats": NUM_REPEATS, "max_new_tokens": 32}

    def shrink(platform: dict) -> None:
        platform["sizes"] = sizes
        platform["overrides"]["server_gpu"].update(changes)

    project.edit("platforms/tiny.yaml", shrink)
    return project
