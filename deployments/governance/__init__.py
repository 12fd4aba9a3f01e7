"""Governance as plain ASGI pieces: the same ones wrap a replica's own app and the front's."""
