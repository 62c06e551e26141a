"""Training of the embedded models and of draft models for a given target."""
