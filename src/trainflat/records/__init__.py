"""What is left on disk: runs, diagnoses, comparisons and loss landscapes, as data. Reports read nothing else."""
