"""Labelled pictures in, arrays out. Imports neither mlflow nor tensorflow: `prepare` starts fast."""
