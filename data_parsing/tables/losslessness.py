"""Table ``losslessness``: what the audit found of every verifier, from the JSON of ``treespec audit``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data_parsing.tables.frames import COUNT, NUMBER, TEXT, frame

SCHEMA = {
    "check": TEXT,
    "verifier": TEXT,
    "contract": TEXT,
    "topology": TEXT,
    "temperature": NUMBER,
    "num_outcomes": COUNT,
    "total_variation": NUMBER,
    "p_value": NUMBER,
    "is_lossless_claimed": TEXT,
    "verdict": TEXT,
}
"""``num_outcomes``, ``total_variation``: of enumerations, exact up to rounding; ``p_value``: of sampling tests."""

CERTIFICATE, CONTROL = "certificate", "negative control"
_TEMPERATURE = re.compile(r"temperature ([0-9.]+)")
_SUBJECT = re.compile(r"(?:(?P<verifier>\w+), )?(?P<contract>\w+) (?P<topology><[^,]*(?:,[^,]*)*>)")
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError)


def losslessness_table(audit_dir: Path) -> pd.DataFrame:
    """A row per case of every check in a folder's audits; no rows without one. A damaged file is told on stderr."""
    return frame((row for path in sorted(audit_dir.glob("*.json")) for row in _rows(path)), SCHEMA)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        temperature = float(report["settings"]["temperature"])
        return [row for item in report["rows"] for row in _cases(item, temperature)]
    except (OSError, *_MALFORMED) as error:
        print(f"{path}: left out: not the report of an audit ({type(error).__name__}: {error})", file=sys.stderr)
        return []


def _cases(item: Mapping[str, Any], temperature: float) -> Iterator[dict[str, Any]]:
    """The rows of one check: the certificate's of each case, one of every other."""
    check, details = item["check"], item["details"]
    if item["holds"] is None and check != CERTIFICATE:
        return  # not run: as if it had not been asked for
    if check == CERTIFICATE:
        for case in details["cases"]:
            yield {
                "check": check,
                "verifier": case["verifier"],
                "contract": case["selection"],
                "topology": case["topology"],
                "temperature": _temperature(case["sampling"]),
                "num_outcomes": case["num_outcomes"],
                "total_variation": case["total_variation"],
                "is_lossless_claimed": "false" if case["status"] == "refused" else "true",
                "verdict": case["status"].lower(),
            }
    elif check == CONTROL:
        yield {
            "check": check,
            "verifier": details["verifier"],
            "contract": details["name"],
            "topology": details["topology"],
            "num_outcomes": details["num_outcomes"],
            "total_variation": details["total_variation"],
            "is_lossless_claimed": "false",
            "verdict": "caught" if details["is_caught"] else "missed",
        }
    else:
        yield _of_the_engine(check, item, details, temperature)


def _of_the_engine(
    check: str, item: Mapping[str, Any], details: Mapping[str, Any], temperature: float
) -> dict[str, Any]:
    """A check of the real engine with a pair of models; its subject is ``verifier, selection <expansion>``."""
    subject = _SUBJECT.fullmatch(item["subject"])
    if subject is None:
        raise ValueError(f"subject {item['subject']!r}")
    is_sampled = "p_value" in details
    return subject.groupdict() | {
        "check": check,
        "temperature": temperature if is_sampled else 0.0,
        "p_value": details.get("p_value"),
        "is_lossless_claimed": "true",
        "verdict": "holds" if item["holds"] else "fails",
    }


def _temperature(sampling: str) -> float:
    found = _TEMPERATURE.search(sampling)
    if found is None:
        raise ValueError(f"sampling {sampling!r}")
    return float(found[1])
