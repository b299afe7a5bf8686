"""The operations of claims that go out: one file each, one row each in this table (docs/billing.md)."""
