"""From a folder of cell images to batches on the device."""
