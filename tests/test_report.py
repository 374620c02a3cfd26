"""Files of a report: what is written is read back."""

import numpy as np

from pipeline import report


def test_predictions_are_read_back_to_the_last_digit():
    classes = ("label", "two\r\nlines", 'a,"b"', "\udcff")
    names = ["x/\udcff.jpg", "comma, and\nline.png", "", "4"]
    labels = np.array([3, 0, 1, 1])
    probabilities = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    probabilities[2] = np.nan
    got = report.read_predictions(report.predictions(classes, names, labels, probabilities))
    assert (got.classes, list(got.names)) == (classes, names)
    assert got.labels.tolist() == [3, 0, 1, 1]
    np.testing.assert_array_equal(got.probabilities.astype(np.float32), probabilities)
    np.testing.assert_array_equal(got.probabilities, probabilities.astype(float))
