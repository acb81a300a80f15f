import pytest

from depth_lightning.wording import counted, file_size, significant


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (counted(0, "image"), "0 images"),
        (counted(1, "image"), "1 image"),
        (counted(1200, "image"), "1,200 images"),
        (significant(1123.4), "1120"),
        (significant(0.00012345), "0.000123"),
        (significant(65535, 4), "65540"),
        (significant(float("nan")), "nan"),
        (file_size(74_400), "74.4 kB"),
        (file_size(2_970_000_000), "2.97 GB"),
    ],
)
def test_numbers_in_messages(written, expected):
    assert written == expected
