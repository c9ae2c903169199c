"""The bundled corpus, and questions about it."""
