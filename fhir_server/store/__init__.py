"""Stores: one protocol (`protocol.py`), one shipped contract suite (`contract.py`), several implementations."""
