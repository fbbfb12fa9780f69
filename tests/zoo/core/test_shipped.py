"""What ships is found by its folder, and its YAML holds codes as they are written."""

import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.shipped import read, read_yaml


def test_yaml_codes_stay_strings():
    codes = ["01", "0010", "no", "on", "y", "N", "1_000", "1:30", "2024-01-01", "0x1f"]
    assert read_yaml("".join(f"{code}: x\n" for code in codes)) == dict.fromkeys(codes, "x")
    assert read("corpus", "ravdess")["labels"]["05"] == "angry"


def test_yaml_numbers_booleans_and_null_are_resolved():
    text = "[1, 0, -3, 1.5, 1e-4, 2.0e3, true, False, null, ~, '1', yes]"
    values = [1, 0, -3, 1.5, 1e-4, 2000.0, True, False, None, None, "1", "yes"]
    assert read_yaml(text) == values
    assert [type(v) for v in read_yaml(text)] == [type(v) for v in values]


def test_yaml_builds_no_objects():
    with pytest.raises(ConfigError, match=says("python/object/apply:os.getcwd", "line 1")):
        read_yaml("!!python/object/apply:os.getcwd []")
