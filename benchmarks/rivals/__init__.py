"""What people run today instead of Breakwater, each set up as its own documentation advises."""
