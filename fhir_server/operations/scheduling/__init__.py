"""The operations of scheduling: one file each, one row each in this table (docs/scheduling.md)."""
