"""Recipes and settings, with their typed loaders."""
