"""Data: from an image folder to batches on the device."""
