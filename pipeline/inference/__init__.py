"""A trained model on images: evaluation, prediction, class activation maps, export."""
