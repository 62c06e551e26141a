"""Boost-tuning (SpecInfer, section 3): drafts trained one after another on what the earlier ones do not know."""
