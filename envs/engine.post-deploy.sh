#!/usr/bin/env bash
# Into the job's own environment, never into the one Snakemake runs in; editable, so that it is always the current code.
set -euo pipefail
python -m pip install --no-deps --no-build-isolation --editable ./engine
