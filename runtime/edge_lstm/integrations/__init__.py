"""Other people's systems: metrics for Prometheus."""
