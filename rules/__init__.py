"""The workflow's rule files and the plain Python they plan with."""
