"""The examples (`>>>`) in docstrings give what they show."""

import doctest
import importlib

import pytest
from test_house import MODULES

EXAMPLES = [module for module, path in MODULES.items() if ">>> " in path.read_text()]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_give_what_they_show(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed
