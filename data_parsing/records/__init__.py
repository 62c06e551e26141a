"""What was measured: the engine's records, read and checked."""
