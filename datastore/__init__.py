"""The store on disk, and the search over it."""
