"""What models that were registered earlier name as their loader.

Their folder `code/` holds this module's old form, and the package `pipeline` around it. A process that has
imported this project's `pipeline` finds this module in its place. Models of today name
`served_image_classifier.classifier`.
"""

from served_image_classifier.classifier import _load_pyfunc

__all__ = ["_load_pyfunc"]
