"""The loader of models that earlier versions registered.

Their folder `code/` holds an old copy of this module and of the package `pipeline`. A process that has
already imported this project's `pipeline` uses this module instead. New models name
`served_image_classifier.classifier` as their loader.
"""

from served_image_classifier.classifier import _load_pyfunc

__all__ = ["_load_pyfunc"]
