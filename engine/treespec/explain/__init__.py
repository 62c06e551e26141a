"""Why is it slower? What a run's times and counts say, and which speculation would pay."""
