"""What the provider costs, beside what a user would take instead (``make bench``)."""
