"""The invented clinic in `examples/`: `python -m scripts.sample_clinic` writes its five transaction bundles."""
