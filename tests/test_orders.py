"""What the supervisor tells the manager survives the pipe between them."""

from pathlib import Path

import pytest

from pilot.agent.messages import AgentSettings
from pilot.drain import End, Urgency
from pilot.folder import Folder
from pilot.orders import DrainOrder, EndOrder, Order, Orders, from_line, to_line
from pilot.ranks.plan import Plan, read_plan
from pilot.slurm.allocation import NodeGrant


@pytest.mark.parametrize(
    "order",
    [
        DrainOrder("SIGUSR1", Urgency.WARNING),
        DrainOrder("Ctrl-C", Urgency.NOW),
        EndOrder(End.ALLOCATION, 1234.5),
        EndOrder(End.MAINTENANCE, None),
    ],
)
def test_an_order_comes_out_of_the_pipe_as_it_went_in(order: Order) -> None:
    line = to_line(order)
    assert line.endswith(b"\n")
    assert from_line(line) == order


def test_what_is_no_order_is_refused() -> None:
    with pytest.raises(ValueError, match="no order"):
        from_line(b'{"order": "dance"}')


def test_orders_are_taken_once_and_in_order() -> None:
    orders = Orders()
    orders.put(DrainOrder("a"))
    orders.put(EndOrder(End.ALLOCATION, 1.0))
    assert orders.take() == [DrainOrder("a"), EndOrder(End.ALLOCATION, 1.0)]
    assert orders.take() == []


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.make()
    settings = AgentSettings("/somewhere", "abc", 3, ("--mca", "x"), {"A": "1"}, hyperthreads=True)
    plan = Plan("nonce", settings, {"n1": NodeGrant("n1", 8, 1000, (0, 1)), "n2": NodeGrant("n2", None, None, None)})
    path = plan.write(folder)
    assert read_plan(path) == plan
