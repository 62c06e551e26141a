"""What makes a machine a host of ours: steps that know whether they are done."""
