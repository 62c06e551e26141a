"""The audit: proof by enumeration that a verifier keeps the target's distribution, and that the proof can fail."""

from treespec.audit.certificate import Case, CertificateRow, Status, certify, default_cases
from treespec.audit.controls import Control, ControlRow, default_controls, run_controls

__all__ = [
    "Case",
    "CertificateRow",
    "Control",
    "ControlRow",
    "Status",
    "certify",
    "default_cases",
    "default_controls",
    "run_controls",
]
