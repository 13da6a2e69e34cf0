"""Model servers that are SLURM jobs: `job` starts one, through the commands of `cluster` and the files of `folder`."""
