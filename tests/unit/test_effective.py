import pytest

from leuk.data.splits import effective_patients


@pytest.mark.parametrize(
    ("images", "expected"),
    [([], 0.0), ([5], 1.0), ([4, 4, 4], 3.0), ([789, 18, 18], 825**2 / (789**2 + 2 * 18**2))],
)
def test_effective_number_of_patients(images: list[int], expected: float) -> None:
    patients = [f"p{number}" for number, count in enumerate(images) for _ in range(count)]
    assert effective_patients(patients) == pytest.approx(expected)
