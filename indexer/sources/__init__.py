"""Readers that turn files and data sets into documents."""
