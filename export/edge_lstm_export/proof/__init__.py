"""Proof that a bundle is right: golden vectors, stress input, certificate, budgets."""
