"""Prompt files and the order in which their prompts become requests; torch-free."""

from treespec.prompts.composition import prompt_indices
from treespec.prompts.files import Prompt, not_unicode, parse_prompts, read_prompts

__all__ = ["Prompt", "not_unicode", "parse_prompts", "prompt_indices", "read_prompts"]
