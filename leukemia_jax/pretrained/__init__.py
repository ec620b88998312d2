"""Weights from elsewhere: Keras' files in its formats, and ImageNet's."""
