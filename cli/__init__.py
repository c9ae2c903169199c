"""The compactds command."""
