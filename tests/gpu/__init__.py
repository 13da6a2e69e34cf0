"""A check of everything that only a GPU can show; `make gpu-check` runs it and prints a JSON line a step."""
