"""Billing as pure functions: charges to claims, scrubbing, splitting, posting, ledger, reports (docs/billing-rules.md).

Resources come and go as plain dictionaries, money in them as `Decimal`; clock, zone and settings are arguments.
"""
