"""Ports and who may reach them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from deployments.doctor.finding import Finding, Subject, failure, ok, warning
from deployments.launch import check_port
from engine.errors import ConfigError

LISTENING = "0A"
"""State of a socket in /proc/net/tcp."""

ANY_ADDRESS = "0.0.0.0"


def check_ports(subject: Subject) -> Iterator[Finding]:
    """As ``lacuna serve`` does, and whether they may be opened. gRPC binds to every interface."""
    options = subject.options
    yield _port("HTTP port", options.host, options.http_port, "--port")
    if options.grpc_port == options.http_port:
        yield failure("gRPC port", f"{options.grpc_port} is the HTTP port too", "choose another with --grpc-port")
    else:
        yield _port("gRPC port", ANY_ADDRESS, options.grpc_port, "--grpc-port")


def check_access(subject: Subject) -> Iterator[Finding]:
    if subject.config is None:
        return
    host = subject.options.host
    if subject.config.api_keys:
        yield ok("access", f"with one of {len(subject.config.api_keys)} API keys")
    elif not _is_loopback(host):
        yield warning("access", f"{host} without API keys: whoever reaches it uses the models", "see `lacuna keys new`")
    else:
        yield ok("access", "no API keys; HTTP from this machine only, gRPC from every machine that reaches its port")


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """Who listens, as "name (pid N)"; empty where that cannot be known (another user's process, another system)."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    for entry in proc.glob("[0-9]*/fd/*") if inodes else ():
        try:
            target = os.readlink(entry)
        except OSError:  # ended meanwhile, or another user's
            continue
        if target.removeprefix("socket:[").rstrip("]") in inodes:
            process = entry.parents[1]
            return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _port(check: str, host: str, port: int, option: str) -> Finding:
    try:
        check_port(port, option)
    except ConfigError:
        who = listener(port)
        by = f" by {who}" if who else ""
        return failure(check, f"{port} is in use{by}", f"end what listens there, or choose another with {option}")
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno == errno.EACCES:
            return failure(check, f"{port} may not be opened by this user", f"choose one above 1023 with {option}")
        return failure(check, f"{host}:{port} cannot be opened: {error.strerror or error}", "correct --host")
    return ok(check, f"{port} is free")


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(table: Path, port: int) -> Iterator[str]:
    """Inodes of the sockets of /proc/net/tcp that listen at a port."""
    if not table.is_file():
        return
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]
