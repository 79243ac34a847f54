"""`cclight list` says what there is, and says the truth about what it needs."""

import pytest

import cclight
from cclight.commands.list import configs, main, members

BASES = {"samplers": "Sampler", "operators": "Operator", "priors": "Prior", "sources": "Source", "metrics": "ImageMetric"}


@pytest.mark.parametrize("kind", BASES)
def test_every_member_is_listed_with_its_first_line(kind, capsys):
    abstract = {
        "Operator",
        "LinearOperator",
        "SpectralOperator",
        "Sampler",
        "FromNoise",
        "Prior",
        "NoiseConditioned",
        "Source",
        "ImageMetric",
    }
    public = {name for name in cclight.__all__ if isinstance(getattr(cclight, name), type)}
    expected = {name for name in public - abstract if issubclass(getattr(cclight, name), getattr(cclight, BASES[kind]))}
    assert {entry.name for entry in members(kind)} == expected
    main([kind])
    for entry, line in zip(members(kind), capsys.readouterr().out.splitlines(), strict=True):
        assert line.split()[0] == entry.name
        assert entry.line == getattr(cclight, entry.name).__doc__.partition("\n")[0]


def test_what_samplers_and_operators_are_is_read_rightly():
    for entry in members("samplers"):
        required = getattr(cclight, entry.name).requires.__name__
        assert entry.needs == {
            "Operator": "any operator",
            "LinearOperator": "a linear operator",
            "SpectralOperator": "a spectral operator",
        }.get(required)
    for entry in members("operators"):
        kind = getattr(cclight, entry.name)
        expected = (
            "spectral"
            if issubclass(kind, cclight.SpectralOperator)
            else "linear"
            if issubclass(kind, cclight.LinearOperator)
            else "nonlinear"
        )
        assert entry.needs.split(",")[0] == expected


def test_configurations_are_listed_by_the_name_that_finds_them():
    names = [entry.name for entry in configs()]
    assert {"sr.yaml", "inpaint.yaml", "paper/ffhq.yaml"} <= set(names)
    assert all(entry.line for entry in configs())
