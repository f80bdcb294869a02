"""The address by which others reach this machine."""

import ipaddress
import socket
import threading
import time

import pytest

from mmtransxnet.engine.runner import network
from mmtransxnet.engine.runner.network import (
    interface_of,
    own_address,
    wait_for_port,
)
from tests.support.processes import free_port


@pytest.mark.parametrize('peer', ['127.0.0.1', '::1', 'localhost'])
def test_loopback_stays_loopback(peer):
    found = own_address(peer)
    assert ipaddress.ip_address(found).is_loopback
    assert interface_of(found) == 'lo'


def test_a_name_that_is_loopback_here_only(monkeypatch):
    """As Debian has its own; the default route tells the address."""
    routes = {'node1': '127.0.1.1', network._ELSEWHERE: '10.1.2.3'}
    monkeypatch.setattr(network, '_source', lambda peer: routes[peer])
    assert own_address('node1') == '10.1.2.3'


def test_without_a_default_route(monkeypatch):
    def source(peer):
        if peer == network._ELSEWHERE:
            raise OSError('Network is unreachable')
        return '127.0.1.1'

    monkeypatch.setattr(network, '_source', source)
    assert own_address('node1') == '127.0.1.1'


def test_an_address_of_nobody_here():
    assert interface_of('192.0.2.7') is None


def test_a_port_that_opens_later():
    port = int(free_port())
    answered = []

    def listen():
        time.sleep(0.3)
        with socket.create_server(('127.0.0.1', port)) as server:
            answered.append(server.accept())

    thread = threading.Thread(target=listen)
    thread.start()
    wait_for_port('127.0.0.1', port, 60)
    thread.join()
    assert answered


def test_a_port_that_stays_closed():
    with pytest.raises(OSError, match='refused'):
        wait_for_port('127.0.0.1', int(free_port()), 0.1)
