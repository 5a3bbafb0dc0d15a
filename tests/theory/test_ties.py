"""Which entries of a model matter, by hand."""

import numpy as np
import pytest
from small_problems import chain

from theory import Network
from theory.model import build_model
from theory.ties import needed_entries


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, [True, True, True, True]),
        ({"delay": 2}, [False, True, False, True]),  # the last step reads the second, which reads nothing
        ({"delay": 3}, [True, False, False, True]),
        ({"delay": 3, "leak": 0.5}, [True, True, True, True]),  # what is left of the steps between
    ],
)
def test_entries_that_a_supervised_one_depends_on(settings, needed):
    np.testing.assert_array_equal(needed_entries(build_model(Network.rnn(1, **settings), chain(4, 1.0))), needed)
