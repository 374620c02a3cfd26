"""An experimentation pipeline for labelled pictures: prepare, train, evaluate, sweep, register."""
