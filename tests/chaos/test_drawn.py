"""Which faults a seed draws."""

from tests.chaos.faults import ALL, Drawn


def drawn_names(seed: int) -> list[list[str]]:
    drawn = Drawn(seed)
    return [[f"{fault.name} for {fault.hold_s}" for fault in drawn.next()] for _ in range(60)]


def test_the_same_seed_draws_the_same_faults():
    assert drawn_names(3) == drawn_names(3)
    assert drawn_names(3) != drawn_names(4)


def test_every_kind_comes_before_any_comes_twice():
    drawn = Drawn(11)
    first = [type(drawn.next()[0]) for _ in ALL]
    assert set(first) == set(ALL)


def test_two_at_a_time_break_different_things():
    drawn = Drawn(5)
    pairs = [faults for faults in (drawn.next() for _ in range(400)) if len(faults) == 2]
    assert len(pairs) > 20
    assert all(not one.touches & other.touches and not one.alone | other.alone for one, other in pairs)
