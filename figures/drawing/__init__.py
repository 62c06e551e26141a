"""Paper, ink and words that all figures share."""
