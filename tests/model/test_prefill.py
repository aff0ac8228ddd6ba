from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvharness import Needs
from kvharness.errors import ModelProblem
from kvharness.model.prefill import prefill
from tests.model.test_attention import WINDOW, draw_ids, make_config

if TYPE_CHECKING:
    from tests.conftest import MakePair


def test_a_model_that_only_slides_is_refused(make_pair: MakePair) -> None:
    _, runtime = make_pair(make_config("mistral", sliding_window=WINDOW))
    with pytest.raises(ModelProblem, match="every attention layer of made slides over a window"):
        prefill(runtime, draw_ids(), Needs())
