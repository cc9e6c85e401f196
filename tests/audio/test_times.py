from __future__ import annotations

import numpy as np
import pytest

from unetsep.audio.times import as_seconds


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        *((90, 90), (0.5, 0.5), (np.float32(1.5), 1.5), ("90", 90), (" 1:30 ", 90)),
        *(("1:02:03", 3723), ("90:00.25", 5400.25), ("0:07", 7)),
    ],
)
def test_times_are_numbers_or_clocks(time: float | str, seconds: float) -> None:
    assert as_seconds(time) == seconds


@pytest.mark.parametrize(
    "time",
    [
        *("soon", "1:75", "1:60:00", "1:2:3:4", "", None, True, [90]),
        pytest.param(10**400, id="a number beyond floats"),
        pytest.param("9" * 400 + ":00", id="a clock beyond floats"),
    ],
)
def test_an_invalid_time_is_refused_with_a_message(time: object) -> None:
    with pytest.raises(ValueError, match="is not a time: expected seconds, 1:30 or 1:02:03"):
        as_seconds(time)  # type: ignore[arg-type]
