"""Writes the JSON schemas of the configuration files, for editors and readers: python -m rules.schema FOLDER."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import BaseModel

from rules.settings import BasicTest, Platform, WorkflowConfig
from rules.sweeps import Sweep

SCHEMAS: dict[str, type[BaseModel]] = {
    "config": WorkflowConfig,
    "platform": Platform,
    "basic_test": BasicTest,
    "sweep": Sweep,
}


def schema_texts() -> dict[str, str]:
    """File name -> content of every schema."""
    return {
        f"{name}.schema.json": json.dumps(model.model_json_schema(), indent=2) + "\n" for name, model in SCHEMAS.items()
    }


def main() -> None:
    """Write every schema into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schema_texts().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
