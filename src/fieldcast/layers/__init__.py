"""Parts without recurrence."""
