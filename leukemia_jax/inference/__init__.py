"""Trained models at work on images that nobody has labelled."""
