"""Scores through the runtime's own predictor, beside baselines; verdict, plots, report."""
