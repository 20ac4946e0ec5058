"""A question for an address, and its answer."""

import socket


def question(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return bytes([7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + labels + bytes([0, 0, 1, 0, 1])


def address(packet, answer):
    """The first address of an answer; none where there is none. The answer's name is a pointer (2 bytes), then type, class, TTL and length (10)."""
    at = len(packet) + 12
    if len(answer) < at + 4 or answer[7] == 0:
        return None
    return socket.inet_ntoa(answer[at:at + 4])


class Asker:
    def __init__(self, server):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(2)
        self.socket.connect(server)

    def ask(self, packet):
        self.socket.send(packet)
        found = address(packet, self.socket.recv(1500))
        if found is None:
            raise RuntimeError("no address")
        return found


def ask(server, name):
    return Asker(server).ask(question(name))
