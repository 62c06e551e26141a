"""Two hosts on this machine, reached over real SSH: what the cluster is tested and shown with."""
