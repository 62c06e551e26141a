"""What should be measured: plan files, read and checked."""
