"""Conversion: a checkpoint written anew, inflated, quantised or merged, verified and atomic."""
