"""The recording as training data: dataset, split, batches, augmentation, and checks for leaks and outliers."""
