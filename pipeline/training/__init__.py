"""Fitting one network: resumable and deterministic."""
