"""Run the project's tests.

    mlflow run . -e test

Tests that need the real photos beside the checkout (`../shared`) say so where they are skipped.
"""

import sys

import pytest


def main() -> None:
    """Run pytest over `tests`, and exit with its status."""
    sys.exit(pytest.main(["tests", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
