"""How messages write counts, numbers and sizes."""


def counted(number: int, noun: str) -> str:
    """A count with its noun, such as "1 image" or "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def significant(value: float, digits: int = 3) -> str:
    """A number rounded to so many significant digits, without an exponent below 1e10: "1120", not "1.12e+03"."""
    return f"{float(f'{value:.{digits}g}'):.10g}"


def file_size(count: int) -> str:
    """A size in bytes, such as "2.97 GB" or "74 kB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.3g} {unit}" if count < 1000 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count / 1e3:.3g} kB"
