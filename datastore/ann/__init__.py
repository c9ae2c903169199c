"""In-memory indexes that propose candidates."""
