"""Evaluation with the runtime's own predictor: baselines, scores by task, verdict, plots and report."""
