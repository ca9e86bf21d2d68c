"""What follows from a model's output: anomaly scores and alarms, class labels."""
