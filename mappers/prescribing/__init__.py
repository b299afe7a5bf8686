"""Prescriptions: their life cycle, the checks before they are activated, renewals, and what a pharmacy is told."""
