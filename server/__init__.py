"""Serve a datastore over HTTP."""
