"""What people read, in their language: message catalogues, errors, ids that can be said aloud, dates and numbers."""
