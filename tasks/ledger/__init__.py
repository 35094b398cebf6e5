"""What happened, what it cost and why: one row for each attempt, kept in a SQL database."""
