"""Report: what a results folder holds becomes one HTML page and an RO-Crate; it computes nothing."""
