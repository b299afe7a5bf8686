"""What scheduling reads of the store, for operations, rules and workers alike."""
