"""Callers, for what wrk does not do: a fixed pace, downloads, connections that stay."""

import gc
import socket
import threading
import time

from process import enter

PATIENCE = 10
CHUNK = 512 * 1024


def inside(namespace, deed):
    """Does it on a thread that is in a network namespace; its sockets stay there."""
    came = []

    def work():
        try:
            enter(namespace)
            came.append((deed(), None))
        except BaseException as error:  # for whoever waits
            came.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    value, error = came[0]
    if error:
        raise error
    return value


def head(received):
    """Where the head of a good answer ends, and how long its body is; none where the head is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, *fields = received[:end].decode("latin-1").lower().split("\r\n")
    lengths = [int(field.partition(":")[2]) for field in fields if field.startswith("content-length:")]
    if status.split()[1] != "200" or not lengths:
        raise RuntimeError(f"another answer: {received[:end]!r}")
    return end + 4, lengths[0]


class Client:
    """One connection of HTTP/1.1."""

    def __init__(self, to):
        self.socket = socket.create_connection(to, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path, seen=None):
        """Asks, and reads the whole answer; the length of its body. `seen` is told of bytes as they come, and says whether to go on."""
        self.socket.sendall(b"GET %s HTTP/1.1\r\nHost: server\r\n\r\n" % path.encode())
        received = b""
        while (found := head(received)) is None:
            received += self._some(self.socket.recv(65536))
        at, length = found
        have = len(received) - at
        buffer = memoryview(bytearray(min(CHUNK, length))) if have < length else None
        while have < length:
            count = self._some(self.socket.recv_into(buffer))
            have += count
            if seen and not seen(count):
                break
        return have

    @staticmethod
    def _some(received):
        if not received:
            raise RuntimeError("an end before the end")
        return received


def paced(rate, seconds, deed):
    """Does it so many times a second: how many milliseconds each took, sorted. Where one takes so long that the next is late, the next counts from when it
    should have begun."""
    gc.disable()
    try:
        took, begin = [], time.perf_counter()
        for turn in range(rate * seconds):
            due = begin + turn / rate
            early = due - time.perf_counter()
            if early > 0:
                time.sleep(early)
            start = time.perf_counter() if early > 0 else due
            deed(turn)
            took.append((time.perf_counter() - start) * 1e3)
    finally:
        gc.enable()
    return sorted(took)


class Downloads:
    """Downloads that go on until they are stopped."""

    def __init__(self, chain, streams):
        self.counts, self.over, self.errors = [0] * streams, False, []
        self.threads = [threading.Thread(target=self._run, args=(chain, at)) for at in range(streams)]
        for thread in self.threads:
            thread.start()

    def bytes(self):
        return sum(self.counts)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _run(self, chain, at):
        def seen(count):
            self.counts[at] += count
            return not self.over
        try:
            enter(chain.namespace)
            client = Client(chain.to)
            while not self.over:
                client.get("/bulk", seen)
        except Exception as error:  # for whoever stops it
            self.errors.append(error)
