"""Parameters in a line of text."""

from __future__ import annotations

import pandas as pd
import pytest

from storage import InvalidRequest
from storage.tables import select
from tasks.text import keyed
from wavemill.specs import SpectrumSpec


def test_a_list_goes_on_behind_its_commas() -> None:
    assert keyed("J=4,spacing=1,2,L=8", "", "") == {"J": "4", "spacing": "1,2", "L": "8"}
    assert keyed("", "", "") == {}


@pytest.mark.parametrize("text", ["J", "=4", "J=4,J=5"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'here:{text}'"):
        keyed(text, f"here:{text}", "here:J=4")


@pytest.mark.parametrize("text", ["0.5,2", "[0.5, 2]", "(0.5, 2.0)"])
def test_lists_are_read_as_they_are_written_and_printed(text: str) -> None:
    assert SpectrumSpec.from_parameters({"spacing": text}).spacing == (0.5, 2.0)


@pytest.mark.parametrize(
    "expression",
    [
        "true) UNION ALL SELECT 9 FROM (SELECT 1",
        "x > 1 ORDER BY x",
        "x > 1; SELECT 1",
        "x > 1 FROM frame WHERE x > 2",
        "x > 1, x > 2",
        "sum(x) > 1",
    ],
)
def test_a_condition_is_one_expression_and_nothing_else(expression: str) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3]})
    assert select(frame, "x > (SELECT avg(x) FROM frame) -- mean", "--where")["x"].tolist() == [3]
    with pytest.raises(InvalidRequest, match=r"--where .*: .*; columns: x"):
        select(frame, expression, "--where")


def test_parameters_with_lists_are_read_back_from_the_text_of_a_view() -> None:
    spec = SpectrumSpec(spacing=(0.5, 2.0))
    text = ",".join(f"{name}={value}" for name, value in spec.parameters().items())
    assert SpectrumSpec.from_parameters(keyed(text, text, "")) == spec
