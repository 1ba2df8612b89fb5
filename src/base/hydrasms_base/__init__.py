"""What edge and core both need and nothing else."""
