"""Which cores an attempt gets on a node: near to each other, none twice, and nothing is lost."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.scheduler.cores import FreeCores, Layout, Levels, neighbours, spread

#: two sockets of 128 cores, caches of 16
CACHES = tuple(tuple(range(first, first + 16)) for first in range(0, 256, 16))
BANKS = (tuple(range(128)), tuple(range(128, 256)))
EPYC = Layout(range(256), (CACHES, BANKS))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any cores, and levels that need neither nest nor mention all of them."""
    cores = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=40)))
    levels: list[tuple[tuple[int, ...], ...]] = []
    for _ in range(draw(st.integers(0, 3))):
        marks = draw(st.lists(st.integers(-1, 5), min_size=len(cores), max_size=len(cores)))
        groups = [tuple(core for core, mark in zip(cores, marks, strict=True) if mark == wanted) for wanted in range(6)]
        levels.append(tuple(group for group in groups if group))
    return Layout(cores, tuple(levels))


def free_by_leaf(free: FreeCores, layout: Layout) -> list[int]:
    there = set(free)
    return [len(there & set(leaf)) for leaf in layout.leaves]


def leaves_of(cores: tuple[int, ...], layout: Layout) -> set[int]:
    return {layout.home[core] for core in cores}


@given(layouts())
def test_domains_nest_and_have_each_core_once(layout: Layout) -> None:
    assert sorted(chain.from_iterable(layout.leaves)) == sorted(layout.cores)
    assert [domain.leaves for domain in layout.levels[-1]] == [tuple(range(len(layout.leaves)))]
    for level in layout.levels:
        for domain in level:
            if domain.parts:
                assert domain.leaves == tuple(leaf for part in domain.parts for leaf in part.leaves)


@settings(max_examples=300, deadline=None)
@given(layouts(), st.data())
def test_no_core_is_held_twice_and_nothing_is_lost(layout: Layout, data: st.DataObject) -> None:
    free = FreeCores(layout)
    held: list[tuple[int, ...]] = []
    for _ in range(data.draw(st.integers(1, 25))):
        ranks, threads = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
        if data.draw(st.booleans()) and held:
            free.give_back(held.pop(data.draw(st.integers(0, len(held) - 1))))
            continue
        before, sizes = set(free), free_by_leaf(free, layout)
        fit = free.fit(ranks, threads)
        assert (fit is not None) == (ranks * threads <= len(before))
        if fit is None:
            continue
        cores = free.take(ranks, threads)
        held.append(cores)
        assert len(cores) == len(set(cores)) == ranks * threads
        assert set(cores) <= before
        assert set(free) == before - set(cores)
        assert free.count == len(before) - len(cores)
        check_alignment(cores, threads, sizes, layout)
    for cores in held:
        free.give_back(cores)
    assert list(free) == sorted(layout.cores)
    assert free_by_leaf(free, layout) == [len(leaf) for leaf in layout.leaves]


def check_alignment(cores: tuple[int, ...], threads: int, sizes: list[int], layout: Layout) -> None:
    """What fits into one leaf is in one leaf; no rank straddles leaves where none had to."""
    fitting = [leaf for leaf, size in enumerate(sizes) if size >= len(cores)]
    if fitting:
        (leaf,) = leaves_of(cores, layout)
        assert sizes[leaf] == min(sizes[other] for other in fitting)
    ranks = [cores[i : i + threads] for i in range(0, len(cores), threads)]
    straddling = [rank for rank in ranks if len(leaves_of(rank, layout)) > 1]
    if sum(size // threads for size in sizes) >= len(ranks):
        assert not straddling


def test_a_small_task_goes_into_the_fullest_cache_that_has_room_for_it() -> None:
    free = FreeCores(EPYC)
    assert free.take(12, 1) == tuple(range(12))
    # four are left there: enough for these, and the other caches stay whole
    assert free.take(2, 2) == (12, 13, 14, 15)
    assert free.take(1, 5) == tuple(range(16, 21))


def test_a_task_larger_than_a_cache_gets_whole_caches_of_one_socket() -> None:
    free = FreeCores(EPYC)
    first = free.take(8, 1)
    wide = free.take(48, 1)
    # caches that are whole, at the memory that is in use already; not the half cache
    assert wide == tuple(range(16, 64))
    assert leaves_of(first, EPYC) == {0}
    # 24 = a whole cache and the best of the others for the rest: the half one
    assert free.take(24, 1) == (*range(8, 16), *range(64, 80))


def test_what_fits_no_socket_uses_one_of_them_up() -> None:
    free = FreeCores(EPYC)
    assert free.take(160, 1) == tuple(range(160))
    # 96 are left on the second socket
    fit = free.fit(96, 1)
    assert fit is not None
    assert (fit.split, fit.height) == (False, 1)
    assert free.take(96, 1) == tuple(range(160, 256))


def test_a_rank_goes_before_the_task() -> None:
    levels: Levels = (((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)), (tuple(range(6)), tuple(range(6, 12))))
    layout = Layout(range(12), levels)
    free = FreeCores(layout)
    # six cores would fit into one half; but three ranks of two threads need three caches
    assert free.take(3, 2) == (0, 1, 3, 4, 6, 7)
    # five single cores are left and one whole cache: one rank has to straddle, the other has not
    assert free.take(2, 3) == (9, 10, 11, 2, 5, 8)


def test_the_whole_node_is_given_cache_by_cache() -> None:
    layout = Layout(range(8), (((0, 2, 4, 6), (1, 3, 5, 7)),))
    free = FreeCores(layout)
    assert free.take(4, 2) == (0, 2, 4, 6, 1, 3, 5, 7)
    assert (free.count, list(free)) == (0, [])
    free.give_back((0, 2, 4, 6, 1, 3, 5, 7))
    assert list(free) == list(range(8))


@pytest.mark.parametrize(
    ("free", "count", "threads", "chosen"),
    [
        # the shortest run that is enough
        ([0, 1, 2, 4, 5, 7, 8, 9], 2, 1, [4, 5]),
        # no run has all: the longest, then where the rest fits best
        ([0, 1, 2, 4, 5, 7], 4, 1, [0, 1, 2, 7]),
        # each rank has neighbours
        ([0, 2, 3, 5, 6, 8], 4, 2, [2, 3, 5, 6]),
        # as far as there are any
        ([0, 2, 3, 5], 4, 2, [2, 3, 0, 5]),
    ],
)
def test_neighbours_by_number(free: list[int], count: int, threads: int, chosen: list[int]) -> None:
    assert neighbours(free, count, threads) == chosen


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.data())
def test_rooms_are_used_up_before_others_are_touched(rooms: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, sum(rooms)))
    shares = spread(rooms, wanted)
    assert sum(shares) == wanted
    assert all(0 <= share <= room for share, room in zip(shares, rooms, strict=True))
    # as few as may be
    used, largest = sum(1 for share in shares if share), sorted(rooms, reverse=True)
    assert sum(largest[: max(0, used - 1)]) < wanted or wanted == 0
    assert sum(1 for share, room in zip(shares, rooms, strict=True) if 0 < share < room) <= 1
