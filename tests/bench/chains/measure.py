"""One measurement of one chain."""

import subprocess
import time

import said
from client import Client, Downloads, inside, paced
from network import inside as command_inside
from book import percentile

PACE = 1000  # requests a second
OPEN = 1000  # connections whose memory is looked at
RUN_UP = 0.3  # seconds that downloads run before they are looked at
GIB = 1 << 30


def measure(what, chain, seconds, book):
    {"keepalive": lambda: _load(what, chain, seconds, ["-c64"], book),
     "connections": lambda: _load(what, chain, seconds, ["-c32", "-H", "Connection: close"], book),
     "paced": lambda: _paced(chain, seconds, book),
     "stream": lambda: _bulk(what, chain, seconds, 1, book),
     "streams": lambda: _bulk(what, chain, seconds, 4, book)}[what]()


def wrk(chain, seconds, options):
    command = ["wrk", "-t2", "--latency", "--timeout", "10s", f"-d{seconds}s", *options, "http://%s:%d/" % chain.to]
    done = subprocess.run(command_inside(chain.namespace, *command), capture_output=True, text=True, timeout=seconds + 60)
    return said.wrk(done.stdout + done.stderr)


def _load(what, chain, seconds, options, book):
    proxies, machine = chain.used()
    load = wrk(chain, seconds, options)
    proxies_after, machine_after = chain.used()
    requests = load["requests"]
    book.note(what, chain.name, {
        "rate": load["rate"], "p50": load["p50"], "p99": load["p99"],
        "cpu": (proxies_after - proxies) * 1e6 / requests, "machine": (machine_after - machine) * 1e6 / requests,
        "failed": load["failed"] * 1e6 / requests})


def _paced(chain, seconds, book):
    proxies, _ = chain.used()

    def work():
        client = Client(chain.to)
        return paced(PACE, seconds, lambda _: client.get("/"))

    took = inside(chain.namespace, work)
    used = chain.used()[0] - proxies
    book.note("paced", chain.name, {
        "p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "p999": percentile(took, 0.999),
        "cpu": used * 1e6 / (PACE * seconds)})


def _bulk(what, chain, seconds, streams, book):
    downloads = Downloads(chain, streams)
    time.sleep(RUN_UP)
    (proxies, machine), came, began = chain.used(), downloads.bytes(), time.monotonic()
    time.sleep(seconds)
    (proxies_after, machine_after), gib = chain.used(), (downloads.bytes() - came) / GIB
    took = time.monotonic() - began
    downloads.stop()
    if gib <= 0:
        raise RuntimeError(f"{chain.name}: no byte came")
    book.note(what, chain.name, {
        "gib": gib / took, "cpu_gib": (proxies_after - proxies) / gib, "machine_gib": (machine_after - machine) / gib})


def memory(chain, column, book, what="VmRSS"):
    """Memory of its proxies: of all together, and of each."""
    all_of = chain.memory(what)
    if all_of:
        book.note("memory", chain.name, {column: sum(all_of.values())})
    if len(all_of) > 1:
        for role, mib in all_of.items():
            book.note("memory", f"{chain.name} {role}", {column: mib})


def memory_of_connections(chain, book):
    """The same with 1,000 connections, on each of which a request was answered."""
    def work():
        clients = []
        for _ in range(OPEN):
            clients.append(Client(chain.to))
            clients[-1].get("/")
        return clients
    clients = inside(chain.namespace, work)
    memory(chain, "open", book)
    for client in clients:
        client.socket.close()
