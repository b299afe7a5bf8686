"""The thin HTTP layer: ASGI in, interactions called, ASGI out."""
