"""Forecasts that the service takes as inputs."""
