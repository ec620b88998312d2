"""Pure functions of images: augmentation, JPEG, input scaling."""
