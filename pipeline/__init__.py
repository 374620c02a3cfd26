"""An experimentation pipeline for labelled images.

Its packages, in the order of the flow. Each imports only from those above it:

runtime:    errors, console output, logging, hardware and atomic files.
config:     the schema of `params.yaml`, the search space of a sweep, and the command line.
sources:    where images come from: folders, zips, downloads, drawings.
dataset:    images in; memory-mapped arrays and splits out.
models:     parameters in; an uncompiled `keras.Model` out.
evaluation: predictions in; metrics, intervals and paired tests out; the objective.
figures:    Matplotlib figures from arrays.
training:   fits one network: resumable and deterministic.
pages:      self-contained HTML pages: the sweep report, and parts of the doctor's page.
tracking:   runs, artifacts, models and the registry: the only importer of MLflow.
doctor:     checks of the data before training.
inference:  a trained model on images: evaluate, predict, explain, export.
execution:  where a cell is trained: this process, worker processes, a cluster.
sweep:      which cells there are, which are finished, and which is the best.
reports:    the report of a sweep, and the model card of a version.
steps:      the entry points: one module per command.
"""
