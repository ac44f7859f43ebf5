import signal
import threading

import pytest

from detour.interrupt import AtOnce, whole_steps


def test_ctrl_c_waits_for_the_check():
    reached = []
    with whole_steps() as between_steps:
        between_steps()
        signal.raise_signal(signal.SIGINT)
        reached.append("the end of the step")
        with pytest.raises(KeyboardInterrupt):
            between_steps()
    assert reached == ["the end of the step"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_acts_at_once():
    reached = []
    with whole_steps():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # schedulers send it again: that is no impatience
        reached.append("still there")
        with pytest.raises(AtOnce):
            signal.raise_signal(signal.SIGINT)
    assert reached == ["still there"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_request_to_end_is_one_too():
    with whole_steps() as between_steps:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            between_steps()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_somebody_elses_handler_stays():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with whole_steps() as between_steps:
            signal.raise_signal(signal.SIGINT)
            between_steps()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_left_alone():
    done = []

    def work():
        with whole_steps() as between_steps:
            between_steps()
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]
