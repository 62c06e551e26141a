"""Prompt files and the order in which their prompts become requests; torch-free."""

from treespec.prompts.composition import prompt_indices
from treespec.prompts.files import Prompt, parse_prompts, read_prompts

__all__ = ["Prompt", "parse_prompts", "prompt_indices", "read_prompts"]
