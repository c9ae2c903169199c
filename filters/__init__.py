"""Decide what may enter a store and what a query may return."""
