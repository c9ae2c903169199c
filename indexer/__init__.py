"""Documents in, datastore out."""
