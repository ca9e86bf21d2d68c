"""A recording as training data: features and targets, splits, batches, augmentation."""
