"""Tables and published numbers, read into typed rows."""
