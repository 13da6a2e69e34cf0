"""What users and their tools meet first: the wheel, the locks, `make`, and folders of the first version."""
