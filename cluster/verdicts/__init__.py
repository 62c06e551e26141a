"""What is judged of a host, each from facts alone: a verdict, what was found, and what to do where it is not enough."""
