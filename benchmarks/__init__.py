"""What this costs and how it compares, side by side in one run."""
