"""An experimentation pipeline for labelled images.

Its packages, in the order in which a sweep uses them:

sources:    where labelled images come from: folders, zips, downloads, drawn samples.
dataset:    images in; memory-mapped arrays and splits out.
models:     networks: parameters in, an uncompiled `keras.Model` out.
training:   fitting one network: resumable and deterministic.
evaluation: what predictions are worth: metrics, intervals, paired tests, the objective.
figures:    Matplotlib figures from arrays.
tracking:   runs, artifacts, models and the registry: the only importer of MLflow.
doctor:     checks of the data before training.
execution:  how and where a cell is trained: this process, worker processes, a cluster.
sweep:      which cells there are, which are finished, and which is the best.
inference:  a trained model on images: evaluation, prediction, class activation maps, export.
reports:    the report of a sweep, and the model card of a version.
pages:      self-contained HTML pages: the sweep report and what it shares with the doctor's page.
steps:      the entry points: one module per command.
config:     the schema of `params.yaml`, the search space of a sweep, and the command line.
runtime:    errors, console output, logging, hardware and atomic files: what every package needs.
"""
