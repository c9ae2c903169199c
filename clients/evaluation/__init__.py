"""Measure retrieval and what it does for answers, embedded or over HTTP."""
