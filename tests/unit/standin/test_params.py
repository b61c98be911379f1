"""Parameters as clients encode them."""

import pytest
from zerver.lib.exceptions import JsonableError
from zerver.lib.params import Params


def test_values_are_decoded():
    params = Params({"a": "text", "b": "3", "c": "true", "d": "[1, 2]", "e": '{"x": 1}'})
    assert params.text("a") == "text"
    assert params.integer("b") == 3
    assert params.boolean("c") is True
    assert params.ids("d") == [1, 2]
    assert params.json("e", dict) == {"x": 1}
    assert params.unsupported == []


def test_defaults_and_aliases():
    params = Params({"subject": "old name"})
    assert params.text("topic", "", aliases=("subject",)) == "old name"
    assert params.integer("n", None) is None
    assert params.json("narrow", list, []) == []


def test_what_nobody_asked_for_is_reported():
    params = Params({"a": "1", "zzz": "1", "b": "2"})
    params.integer("a")
    params.accept("b")
    assert params.unsupported == ["zzz"]


@pytest.mark.parametrize(
    ("read", "code"),
    [
        (lambda p: p.text("missing"), "REQUEST_VARIABLE_MISSING"),
        (lambda p: p.integer("word"), "REQUEST_VARIABLE_INVALID"),
        (lambda p: p.integer("true"), "REQUEST_VARIABLE_INVALID"),
        (lambda p: p.integer("minus", minimum=0), "REQUEST_VARIABLE_INVALID"),
        (lambda p: p.boolean("minus"), "REQUEST_VARIABLE_INVALID"),
        (lambda p: p.ids("names"), "REQUEST_VARIABLE_INVALID"),
        (lambda p: p.ids("flags"), "REQUEST_VARIABLE_INVALID"),
    ],
)
def test_errors_name_the_parameter(read, code):
    params = Params({"word": "abc", "true": "true", "minus": "-1", "names": '["a"]', "flags": "[true]"})
    with pytest.raises(JsonableError) as error:
        read(params)
    assert error.value.status == 400
    assert error.value.code == code
    assert error.value.data["var_name"]
