"""The store at scale: a MongoDB replica set or sharded cluster, shared by any number of processes and machines."""

from fhir_server.store.mongo.store import MongoStore, open_store

__all__ = ["MongoStore", "open_store"]
