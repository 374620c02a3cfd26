"""Run the project's tests.

    mlflow run . -e test

Tests that need the real photos beside the checkout (`../shared`) say so where they are skipped.
"""

import sys

import pytest


def main() -> None:
    """Run pytest over `tests`, and exit with its status."""
    # Several processes, each with whole files: much of the tests' time is spent waiting.
    parallel = ["-n", "logical", "--maxprocesses", "4", "--dist", "loadfile"]
    sys.exit(pytest.main(["tests", *parallel, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
