"""Talk to a compactds server from Python."""
