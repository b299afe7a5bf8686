"""The HTTP layer: an ASGI request in, the interaction called, an ASGI response out."""
