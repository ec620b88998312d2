"""A page in a browser that puts trained models to images dropped on it."""
