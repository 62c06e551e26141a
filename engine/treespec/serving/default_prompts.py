"""Prompts for a comparison when no file is given."""

DEFAULT_PROMPTS = (
    "def read_lines(path):\n    ",
    "class Stack:\n    def __init__(self):\n        ",
    "The three main causes of the fire were",
    "Write a short letter to a friend who moved to another city.",
    "import json\n\n\ndef load_settings(path):\n    ",
    "Question: Why does ice float on water?\nAnswer:",
    "# Sort the records by date and keep the newest of each user\n",
    "In this paper we show that",
)
