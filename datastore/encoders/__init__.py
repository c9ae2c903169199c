"""Text to vectors, the same way at build and at query time."""
