"""Parts of a computation have seeds of their own."""

from theory.seeds import part


def test_no_two_parts_share_a_seed():
    """Neighbouring seeds, and places inside one another: 4096, of which any collide with probability .002."""
    places = [(i,) for i in range(8)] + [(i, j) for i in range(7) for j in range(8)]
    assert len({part(seed, *place) for seed in range(64) for place in places}) == 64 * 64
    assert part(3, 1, 4) == part(3, 1, 4)
