"""Which network interface the ranks use."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

from ray.util import get_node_ip_address

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface."""


def own_address() -> str:
    """This node's address, as the other nodes of the cluster know it."""
    return str(get_node_ip_address())  # type: ignore[no-untyped-call]


def use_interface_of(address: str) -> str | None:
    """Have gloo use the interface that has this address of the node, unless the operator has set one; its name.

    Left alone, gloo looks up the host's own name, which in containers often is the loopback address: ranks on other
    nodes could not reach it.
    """
    chosen = os.environ.get(GLOO_INTERFACE) or interface_of(address)
    if chosen is not None:
        os.environ[GLOO_INTERFACE] = chosen
    return chosen


def interface_of(address: str) -> str | None:
    """The interface with this IPv4 address; None when there is none, or no way to ask."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            try:
                fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(request[20:24].tobytes()) == address:
                return name
    return None
