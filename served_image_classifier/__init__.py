"""What a served model carries: encoded images in, a data frame of labels and probabilities out.

A registered model has a copy of this package in its folder `code/`, so MLflow loads it without a checkout of
the project, in whatever process calls `mlflow.pyfunc.load_model`. It runs in the user's process, so the
package has a unique name, and imports only itself (relatively) and the model's pinned requirements.
`images` imports neither TensorFlow nor MLflow; the pipeline decodes with it too.
"""
