import pytest

from unetsep.errors import check_choice, first_line


def test_the_first_line_of_an_error_without_a_message_is_its_type() -> None:
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert first_line(EOFError()) == "EOFError"


def test_another_value_is_refused_with_all_choices() -> None:
    check_choice("band", "11khz", {"11khz": 1024, "16khz": 1536})
    with pytest.raises(ValueError, match=r"^band must be one of 11khz, 16khz, got '12khz'$"):
        check_choice("band", "12khz", {"11khz": 1024, "16khz": 1536})
