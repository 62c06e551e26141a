"""Platform files: read, filled with what the command line gives for their arguments, validated."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rules.settings import Argument, Platform, WorkflowConfig, validated
from treespec.errors import ConfigError

CONFIG_DIR = Path("config")
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def platform_file(platform: str) -> Path:
    """The file of a platform given by its name in config/platforms/, or by a path."""
    is_path = platform.endswith((".yaml", ".yml"))
    path = Path(platform) if is_path else CONFIG_DIR / "platforms" / f"{platform}.yaml"
    if not path.is_file():
        raise ConfigError(
            "platform file is not there" if is_path else "unknown platform",
            where=str(CONFIG_DIR / "config.yaml"),
            received=platform,
            allowed=sorted(file.stem for file in (CONFIG_DIR / "platforms").glob("*.yaml")),
            fix="name one of these, or give the path of a platform file",
        )
    shipped = CONFIG_DIR / "platforms" / f"{path.stem}.yaml"
    if is_path and shipped.is_file() and not shipped.samefile(path):
        raise ConfigError(
            "another platform has this name, and its results",
            where=str(path),
            received=path.stem,
            fix=f"rename the file: results lie under its name, and {shipped} has it",
        )
    return path


def load_platform(name: str, given: Mapping[str, object]) -> Platform:
    """A platform with ``given`` values in the places of its arguments; ConfigError tells the command that would do."""
    path = platform_file(name)
    data = read_yaml(path)
    declared = data.get("arguments", {}) if isinstance(data, Mapping) else {}
    if not isinstance(data, Mapping) or not isinstance(declared, Mapping):
        return validated(Platform, data, str(path))
    arguments = {key: validated(Argument, argument, f"{path}, arguments.{key}") for key, argument in declared.items()}
    if unknown := sorted(given.keys() - arguments.keys()):
        raise ConfigError(
            f"unknown key {', '.join(map(repr, unknown))}",
            where=f"{CONFIG_DIR / 'config.yaml'} or --config, with platform {name}",
            allowed=", ".join((*WorkflowConfig.model_fields, *arguments)),
        )
    values = _argument_values(arguments, given, str(path), _usage(name, arguments))
    return validated(Platform, _filled({**data, "arguments": {}}, values, str(path)), str(path))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML would keep the last one and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if doubled := [key for key, count in Counter(keys).items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {doubled[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """A YAML file as plain data. Raises ConfigError."""
    try:
        data: object = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except OSError as error:
        raise ConfigError("configuration cannot be read", where=str(path), received=error.strerror) from error
    except yaml.YAMLError as error:
        raise ConfigError("not valid YAML", where=str(path), received=" ".join(str(error).split())) from error
    return data


def _argument_values(
    arguments: Mapping[str, Argument], given: Mapping[str, object], where: str, usage: str
) -> dict[str, object]:
    values: dict[str, object] = {
        name: argument.default if given.get(name) in (None, "") else given[name] for name, argument in arguments.items()
    }
    if missing := [name for name, value in values.items() if value is None]:
        raise ConfigError(f"this platform needs {' and '.join(missing)}", where=where, fix=usage)
    for name, argument in arguments.items():
        if not argument.is_path:
            continue
        path = Path(str(values[name])).expanduser()
        values[name] = str(path)
        if not path.exists():
            raise ConfigError(
                f"{name} is not there",
                where=where,
                received=str(path),
                allowed=f"the path of a {argument.description}",
                fix=usage,
            )
    return values


def _usage(platform: str, arguments: Mapping[str, Argument]) -> str:
    parts = [
        f"{name}={'PATH' if argument.is_path else 'VALUE'}"
        if argument.default is None
        else f"[{name}={'PATH' if argument.is_path else argument.default}]"
        for name, argument in arguments.items()
    ]
    return " ".join(("snakemake TARGET --config", f"platform={platform}", *parts))


def _filled(data: Any, values: Mapping[str, object], where: str) -> Any:
    """Plain data with every string that is a placeholder replaced by its value."""
    if isinstance(data, Mapping):
        return {key: _filled(value, values, where) for key, value in data.items()}
    if isinstance(data, list):
        return [_filled(value, values, where) for value in data]
    match = _PLACEHOLDER.fullmatch(data) if isinstance(data, str) else None
    if match is None:
        return data
    if match[1] not in values:
        raise ConfigError("placeholder of no argument", where=where, received=data, allowed=sorted(values))
    return values[match[1]]
