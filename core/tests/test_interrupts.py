"""Signals: held back, told once, a second one at once; and put back as they were."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from coview.training import interrupts
from coview.training.interrupts import Interrupted, Interrupts

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")

STATUSES = {signal.SIGINT: 1, signal.SIGTERM: 143, signal.SIGUSR1: 138}


@pytest.fixture(autouse=True)
def _as_in_a_program() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STATUSES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STATUSES)
def test_outside_a_step_it_ends_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, Interrupts():
        signal.raise_signal(number)
        pytest.fail("it went on")
    assert caught.value.number == number and not caught.value.at_once
    assert caught.value.status == STATUSES[number]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_step_is_done_first() -> None:
    done = []
    with pytest.raises(Interrupted), Interrupts() as taken:
        with taken.held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("step")
        pytest.fail("it went on")
    assert done == ["step"]


def test_an_echo_is_the_same_order_and_a_second_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = []
    with pytest.raises(Interrupted) as caught, Interrupts() as taken, taken.held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("went on")
        monkeypatch.setattr(interrupts, "SAME_ORDER", 0.0)
        time.sleep(0.001)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")
    assert done == ["went on"]
    assert caught.value.at_once and caught.value.number == signal.SIGTERM


def test_among_several_it_is_kept_until_all_know() -> None:
    with Interrupts(together=True) as taken:
        signal.raise_signal(signal.SIGTERM)
        with taken.held_back():
            pass
        assert taken.received == signal.SIGTERM
        with pytest.raises(Interrupted), taken.let_through():
            pytest.fail("the first process went on measuring")
    with pytest.raises(Interrupted), Interrupts(together=True) as taken, taken.let_through():
        signal.raise_signal(signal.SIGUSR1)


def test_a_program_s_own_handler_and_an_ignored_signal_are_left_alone() -> None:
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Interrupts() as taken:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGUSR1] and taken.received == 0


def test_a_thread_takes_no_signals() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with Interrupts() as taken, taken.held_back():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
