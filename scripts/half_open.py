"""WebSocket clients that vanish: the server's end of a connection stands, and the client's end says nothing any more.

No FIN and no RST leaves, and nothing that the server sends is taken or acknowledged: a filter on the client's socket
drops every segment before TCP sees it. That needs no privilege and no network of its own, and other connections do not
notice. The server's end is watched in the kernel's table of sockets (sock_diag(7)): a client's socket is disposed of
only when the server's end is closed, because disposing of it sends a reset.
"""

import base64
import collections
import ctypes
import os
import socket
import struct
import time

# linux/in.h, asm-generic/socket.h: the socket module does not name them.
IP_BIND_ADDRESS_NO_PORT = 24
SO_ATTACH_FILTER = 26
# A classic BPF program of one instruction: return 0, that is, keep no byte (linux/filter.h).
DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)
DROP_ALL_PROGRAM = struct.pack("HL", 1, ctypes.addressof(DROP_ALL))

# linux/netlink.h, linux/sock_diag.h, net/tcp_states.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 4, 20, 1, 0x300, 2, 3
ESTABLISHED, SYN_RECV, CLOSE_WAIT = 1, 3, 8
# A socket that a process still owns is in one of these; the others are the kernel's own business.
OWNED = 1 << ESTABLISHED | 1 << SYN_RECV | 1 << CLOSE_WAIT
ANY_COOKIE = b"\xff" * 8

# A handshake takes milliseconds: a server that lets one wait for so long is stuck.
ANSWER_SECONDS_MAX = 20
HEAD_BYTES_MAX = 4096


def server_ends(port):
    """The ends of connections at a local IPv4 port that a process owns: addresses and ports of the peers, packed."""
    found = set()
    # struct inet_diag_req_v2: only the local port is asked for.
    identity = struct.pack("!HH32xI", port, 0, 0) + ANY_COOKIE
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, OWNED) + identity
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(ANSWER_SECONDS_MAX)
        netlink.send(header + request)
        while True:
            answer, at = netlink.recv(1 << 16), 0
            while at < len(answer):
                length, kind = struct.unpack_from("=IH", answer, at)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", answer, at + 16)[0]
                    raise OSError(code, f"sock_diag: {os.strerror(code)}")
                # struct inet_diag_msg: the peer's port at 6, its address at 24.
                message = at + 16
                found.add(answer[message + 24:message + 28] + answer[message + 6:message + 8])
                at += (length + 3) & ~3


class HalfOpen:
    """Opens connections at a rate, lets each vanish, and tells which the server still has after its deadline."""

    def __init__(self, address, rate, deadline, sources):
        self.host, self.port = address
        self.rate, self.deadline, self.sources = rate, deadline, sources
        self.request = (
            f"GET /echo HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
        ).encode()
        self.opened = self.ended = self.standing_max = 0
        self.started = None
        # Asked for a WebSocket; and vanished: when, the name of the server's end, the socket.
        self.asked, self.vanished = collections.deque(), collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in [*self.asked, *(client for _, _, client in self.vanished)]:
            client.close()

    def tick(self):
        """Lets vanish whoever was asked for in the last tick, then opens what is due."""
        now = time.monotonic()
        self.started = self.started or now
        while self.asked:
            self._vanish(self.asked[0])
            self.asked.popleft()
        while self.opened < (now - self.started) * self.rate:
            self._ask()
        self.standing_max = max(self.standing_max, len(self.vanished))

    def _ask(self):
        client = socket.socket()
        self.asked.append(client)
        client.settimeout(ANSWER_SECONDS_MAX)
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((self.sources[self.opened % len(self.sources)], 0))
        client.connect((self.host, self.port))
        client.sendall(self.request)
        self.opened += 1

    def _vanish(self, client):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = client.recv(HEAD_BYTES_MAX)
            head += received
            if not received or len(head) > HEAD_BYTES_MAX:
                raise ConnectionError(f"half-open: the handshake was answered with {head[:200]!r}")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"half-open: the handshake was answered with {head[:200]!r}")
        client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, DROP_ALL_PROGRAM)
        host, port = client.getsockname()
        name = socket.inet_aton(host) + port.to_bytes(2, "big")
        self.vanished.append((time.monotonic(), name, client))

    def dispose(self, standing):
        """Given the server's ends that stand: disposes of clients whose time is over; answers how many ends should not
        stand any more."""
        overdue = 0
        before = time.monotonic() - self.deadline
        kept = collections.deque()
        while self.vanished and self.vanished[0][0] < before:
            vanished = self.vanished.popleft()
            if vanished[1] in standing:
                overdue += 1
                kept.append(vanished)
                continue
            self.ended += 1
            # A reset: the server's kernel may forget what it still wanted to deliver.
            client = vanished[2]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        self.vanished.extendleft(reversed(kept))
        return overdue
