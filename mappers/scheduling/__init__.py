"""Scheduling as pure functions: resources and an instant in, times, clashes and issues out (docs/scheduling.md)."""
