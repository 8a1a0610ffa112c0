from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xinfer_runtime.messages import Delta, FinishReason, Priority, Usage
from xinfer_runtime.routing.fair_queue import BATCH_EVERY, Bill, FairQueue, Flow, Ticket

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def served(queue: FairQueue) -> Ticket:
    ticket = queue.next()
    assert ticket is not None
    queue.start(ticket.flow, ticket.priority, ticket)
    return ticket


def test_one_user_is_served_in_the_order_of_arrival() -> None:
    queue = FairQueue()
    tickets = [queue.enter(Flow("ann"), INTERACTIVE) for _ in range(3)]
    queue.leave(tickets[1])
    assert [served(queue), served(queue)] == [tickets[0], tickets[2]]
    assert queue.next() is None


def test_many_requests_of_one_do_not_delay_the_few_of_another() -> None:
    queue = FairQueue()
    for _ in range(100):
        queue.enter(Flow("many"), INTERACTIVE)
    for _ in range(3):
        queue.charge(served(queue).flow, 500)
    queue.enter(Flow("few"), INTERACTIVE)
    next_two = []
    for _ in range(2):
        next_two.append(served(queue).flow)
        queue.charge(next_two[-1], 500)
    assert Flow("few") in next_two


def test_who_waited_for_nothing_saved_up_no_claim() -> None:
    queue = FairQueue()
    queue.start(Flow("new"), INTERACTIVE)
    queue.start(Flow("old"), INTERACTIVE)
    queue.charge(Flow("old"), 1_000_000)
    for _ in range(10):
        queue.enter(Flow("old"), INTERACTIVE)
        queue.enter(Flow("new"), INTERACTIVE)
    names = []
    for _ in range(10):
        ticket = served(queue)
        queue.charge(ticket.flow, 100)
        names.append(ticket.flow.name)
    assert names.count("old") >= 4


def test_a_request_that_lost_its_replica_goes_ahead_of_all() -> None:
    queue = FairQueue()
    queue.enter(Flow("ann"), INTERACTIVE)
    lost = queue.enter(Flow("bob"), BATCH, ahead=True)
    assert served(queue) is lost


def test_interactive_goes_ahead_and_batch_is_not_stuck() -> None:
    queue = FairQueue()
    batch = queue.enter(Flow("ann"), BATCH)
    order = []
    for _ in range(BATCH_EVERY):
        queue.enter(Flow("ann"), INTERACTIVE)
        order.append(served(queue))
    assert order.index(batch) == BATCH_EVERY - 1


def test_prompts_are_corrected_when_their_usage_is_known() -> None:
    queue = FairQueue()
    ann, bob = Flow("ann"), Flow("bob", weight=2.0)
    for flow in (ann, bob):
        queue.start(flow, INTERACTIVE)
        bill = Bill(queue, flow)
        bill.start(1000)
        bill.observe(Delta("r", token_ids=(1, 2, 3)))
        bill.observe(Delta("r", token_ids=(4,), finish_reason=FinishReason.STOP, usage=Usage(500, 4, 400)))
    assert queue._counters == {"ann": 104, "bob": 52}


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=2, max_size=5),
    sizes=st.lists(st.integers(1, 400), min_size=5, max_size=5),
    slots=st.integers(1, 8),
)
def test_who_always_has_requests_gets_tokens_by_weight(weights: list[float], sizes: list[int], slots: int) -> None:
    """Whatever the sizes of their requests, and although a size is known only when the request is over."""
    queue = FairQueue()
    flows = [Flow(f"u{n}", weight) for n, weight in enumerate(weights)]
    size_of = {flow.name: size for flow, size in zip(flows, sizes, strict=False)}
    for flow in flows:
        for _ in range(slots + 1):
            queue.enter(flow, INTERACTIVE)
    running: list[list[object]] = []
    got = dict.fromkeys(size_of, 0)
    for _ in range(8000):
        while len(running) < slots:
            ticket = served(queue)
            queue.enter(ticket.flow, INTERACTIVE)
            running.append([ticket.flow, size_of[ticket.flow.name]])
        for entry in running:
            flow, left = entry
            assert isinstance(flow, Flow)
            assert isinstance(left, int)
            queue.charge(flow, 1)
            got[flow.name] += 1
            entry[1] = left - 1
        running = [entry for entry in running if entry[1]]
    shares = [got[flow.name] / flow.weight for flow in flows]
    # Each is at most what its running requests make beside the level.
    slack = max(sizes) * slots / min(weights)
    assert max(shares) - min(shares) <= 2 * slack


@dataclass
class _User:
    flow: Flow
    tickets: list[Ticket] = field(default_factory=list)


class NoStarvation(RuleBasedStateMachine):
    """Whatever others do, a request of a user who behaves starts after a bounded number of starts."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.users = [_User(Flow(name)) for name in "abc"]
        self.passed: dict[Ticket, int] = {}

    @rule(user=st.integers(0, 2), priority=st.sampled_from(Priority))
    def enter(self, user: int, priority: Priority) -> None:
        ticket = self.queue.enter(self.users[user].flow, priority)
        self.users[user].tickets.append(ticket)
        self.passed[ticket] = 0

    @precondition(lambda self: any(user.tickets for user in self.users))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        user = data.draw(st.sampled_from([user for user in self.users if user.tickets]))
        ticket = data.draw(st.sampled_from(user.tickets))
        self.queue.leave(ticket)
        user.tickets.remove(ticket)
        del self.passed[ticket]

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def start(self) -> None:
        ticket = served(self.queue)
        self.queue.charge(ticket.flow, 100)
        next(user for user in self.users if user.flow is ticket.flow).tickets.remove(ticket)
        del self.passed[ticket]
        for waiting in self.passed:
            self.passed[waiting] += 1

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        for user in self.users:
            for priority in Priority:
                own = [ticket for ticket in user.tickets if ticket.priority is priority]
                for place, ticket in enumerate(own):
                    assert self.passed[ticket] <= (place + 1) * 3 * (BATCH_EVERY + 1) + 3 * len(self.passed) + 60

    @invariant()
    def the_count_is_right(self) -> None:
        assert len(self.queue) == sum(len(user.tickets) for user in self.users)
        assert (self.queue.next() is None) == (len(self.queue) == 0)


TestNoStarvation = NoStarvation.TestCase


def test_users_who_left_are_forgotten() -> None:
    queue = FairQueue()
    for number in range(20_000):
        flow = Flow(f"u{number}")
        queue.start(flow, INTERACTIVE)
        queue.charge(flow, number)
    assert len(queue._counters) <= 4096
