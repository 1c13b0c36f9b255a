"""The clock, the dice and the streams that every simulated world is made of."""

from __future__ import annotations

import pytest

from nacre.errors import NacreError, NotFound, Unavailable
from nacre.sim.dice import Dice, mix, unit
from nacre.sim.network import LinkSpec, Stream
from nacre.sim.verifier import PassTime
from nacre.sim.world import Stuck, World


def test_events_happen_in_time_order_and_ties_in_the_order_they_were_scheduled() -> None:
    world = World(1)
    seen: list[tuple[float, str]] = []
    for delay_s, name in ((0.2, "late"), (0.1, "first"), (0.1, "second"), (0.0, "now")):
        world.after(delay_s, lambda name=name: seen.append((world.now_s, name)))  # type: ignore[misc]
    assert world.run(until_s=1.0, max_events=10)
    assert seen == [(0.0, "now"), (0.1, "first"), (0.1, "second"), (0.2, "late")]


def test_a_cancelled_timer_does_not_fire_and_the_past_is_now() -> None:
    world = World(1)
    seen: list[float] = []
    world.after(0.1, lambda: world.at(0.0, lambda: seen.append(world.now_s)))
    world.after(0.2, lambda: seen.append(-1.0)).cancel()
    world.run(until_s=1.0, max_events=10)
    assert seen == [0.1]


def test_a_world_stops_at_its_time_and_refuses_to_go_round_in_circles() -> None:
    world = World(1)

    def again() -> None:
        world.after(0.1, again)

    again()
    assert not world.run(until_s=0.35, max_events=100)
    assert world.events == 3
    with pytest.raises(Stuck, match="more than 100 events"):
        world.run(until_s=1e9, max_events=100)


def test_dice_repeat_by_key_and_children_are_independent() -> None:
    assert [Dice(7).word() for _ in range(2)] == [Dice(7).word() for _ in range(2)]
    dice = Dice(7)
    draws = [dice.word() for _ in range(4)]
    assert len(set(draws)) == 4
    assert dice.child(1).word() == Dice(7).child(1).word() != dice.child(2).word()
    assert mix(1, 2) != mix(2, 1) != mix(1, 2, 0)


def test_dice_are_fair_enough() -> None:
    dice = Dice(3)
    units = [dice.unit() for _ in range(4000)]
    assert all(0.0 <= value < 1.0 for value in units)
    assert sum(units) / 4000 == pytest.approx(0.5, abs=0.02)
    counts = [0] * 8
    for _ in range(4000):
        counts[dice.below(8)] += 1
    # Chi-square with 7 degrees of freedom: 24.3 is the 0.999 quantile.
    assert sum((count - 500) ** 2 / 500 for count in counts) < 24.3
    assert unit(2**64 - 1) < 1.0
    assert all(2.0 <= dice.between(2.0, 3.0) < 3.0 for _ in range(100))
    assert {dice.pick("ab") for _ in range(50)} == {"a", "b"}


class End:
    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.seen: list[tuple[object, float]] = []

    def receive(self, stream: Stream, message: object) -> None:
        self.seen.append((message, self.world.now_s))

    def lost(self, stream: Stream, error: NacreError | None) -> None:
        self.seen.append((type(error), self.world.now_s))


def joined(spec: LinkSpec, seed: int = 1) -> tuple[World, Stream, End, End]:
    world = World(seed)
    left, right = End("left", world), End("right", world)
    return world, Stream(world, spec, left, right, Dice(seed)), left, right


@pytest.mark.parametrize("seed", range(5))
def test_a_link_delays_and_jitters_but_never_reorders(seed: int) -> None:
    world, stream, left, right = joined(LinkSpec(0.01, jitter_s=0.05), seed)
    sent: list[float] = []

    def send(number: int) -> None:
        sent.append(world.now_s)
        stream.send(left, number)

    for number in range(30):
        world.after(number * 0.002, lambda number=number: send(number))  # type: ignore[misc]
    world.run(until_s=10.0, max_events=1000)
    assert [message for message, _ in right.seen] == list(range(30))
    arrivals = [time_s for _, time_s in right.seen]
    assert arrivals == sorted(arrivals)
    assert all(0.01 <= arrived - left_s < 0.12 for arrived, left_s in zip(arrivals, sent, strict=True))
    assert left.seen == []


def test_a_closed_stream_first_delivers_what_was_sent_before() -> None:
    world, stream, left, right = joined(LinkSpec(0.01))
    stream.send(left, "last words")
    stream.close(left, NotFound("gone"))
    stream.send(left, "too late")
    stream.send(right, "not heard")
    world.run(until_s=1.0, max_events=100)
    assert right.seen == [("last words", 0.01), (NotFound, 0.01)]
    assert left.seen == []


def test_a_cut_stream_loses_what_is_under_way_and_each_end_notices_by_itself() -> None:
    world, stream, left, right = joined(LinkSpec(0.01))
    stream.send(left, "lost")
    world.after(0.005, lambda: stream.cut(notice_s=0.1))
    world.after(0.006, lambda: stream.send(left, "into the void"))
    world.run(until_s=1.0, max_events=100)
    assert [kind for kind, _ in left.seen] == [Unavailable] == [kind for kind, _ in right.seen]
    assert 0.005 <= left.seen[0][1] <= 0.105
    assert left.seen[0][1] != right.seen[0][1]


def test_the_time_of_a_pass_is_linear_between_measured_points_and_beyond() -> None:
    pass_time = PassTime(((1, 0.010), (9, 0.018), (17, 0.050)))
    assert [pass_time(rows) for rows in (1, 5, 9, 13, 17, 25)] == pytest.approx(
        [0.010, 0.014, 0.018, 0.034, 0.050, 0.082]
    )
    assert PassTime(((1, 0.02),))(40) == 0.02
