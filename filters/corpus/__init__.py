"""What may enter a datastore: corpus filters, each of which keeps a document or says why not."""
