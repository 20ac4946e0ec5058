"""`make bench`: our gateways and DNS beside others, in one interleaved run on this machine. See tests/bench/README.md."""

import os
import resource
import signal
import sys
import tempfile
import time

import measure
import names
import peers
import report
import targets
from book import Book
from network import Network
from options import Options
from process import others, resident, stop_all
from tombolo import Tombolo

BEGIN = time.monotonic()


def say(text):
    print(f"{time.monotonic() - BEGIN:6.1f} s  {text}", file=sys.stderr, flush=True)


def main():
    try:
        options = Options(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # in order, so that nothing is left
    before = others()
    if before > report.QUIET:
        say(f"other programs keep {before:.1f} processors busy: what is measured now says little")
    with tempfile.TemporaryDirectory(prefix="tombolo-bench-") as home:
        try:
            book, took = run(options, home), time.monotonic() - BEGIN
        finally:
            stop_all()
    text = report.text(options, book, took, (before, others()))
    print(text)
    if "BENCH_REPORT" in os.environ:
        with open(os.environ["BENCH_REPORT"], "w") as file:
            file.write(text)


def run(options, home):
    network = Network()
    peers.nginx(network, home)
    of_names = "names" in options.measures
    tombolo = None
    if of_names or any(name.startswith("tombolo") for name in options.chains):
        say("Tombolo starts")
        tombolo = Tombolo(network, home, options.chains)
    others, chains = peers.Peers(network, home), []
    for name in options.chains:
        chain = tombolo.chain(name) if name.startswith("tombolo") else others.start(name)
        chain.answers()
        if name == "tombolo4":
            tombolo.is_end_to_end()
        chains.append(chain)
    say("all chains answer")
    if os.environ.get("BENCH_HOLD", "0") != "0":
        hold(chains)
    book = Book()
    if "memory" in options.measures:
        for chain in chains:
            measure.memory(chain, "idle", book)
            measure.memory(chain, "own", book, "RssAnon")
        for chain in chains:
            measure.memory_of_connections(chain, book)
        say("memory")
    rounds(options, chains, book)
    if of_names:
        the_names(options, tombolo, home, chains, book)
    return book


def hold(chains):
    """Nothing is measured for a while: for people who look at a chain with tools of their own."""
    for chain in chains:
        print("%s: ip netns exec %s wrk -t2 -c64 -d10s http://%s:%d/" % (chain.name, chain.namespace, *chain.to),
              *(f"{role}={pid}" for role, pid in chain.proxies), flush=True)
    try:
        time.sleep(float(os.environ["BENCH_HOLD"]))
    except KeyboardInterrupt:
        pass


def rounds(options, chains, book):
    """All measurements of all chains, in turn; each round begins with another chain, so that none always follows the same one."""
    measures = [one for one in options.measures if one not in ("memory", "names")]
    for chain in chains if measures else []:
        measure.wrk(chain, 1, ["-c64"])
    for turn in range(options.rounds):
        for one in measures:
            for chain in chains[turn % len(chains):] + chains[:turn % len(chains)]:
                measure.measure(one, chain, options.seconds, book)
            say(f"{one}, round {turn + 1} of {options.rounds}")


def the_names(options, tombolo, home, chains, book):
    tombolo.many(names.SOME)
    servers = names.Servers(tombolo, home)
    for turn in range(options.rounds):
        servers.measure(options.seconds, book)
        say(f"names, round {turn + 1} of {options.rounds}")
    tombolo.many(names.MANY)
    with_many(tombolo, chains, "many", book)
    # What load left in the gateways is not what names cost; nor is it what reading all of them at once costs.
    tombolo.restart()
    tombolo.many(names.MANY)
    again = [tombolo.chain(chain.name) for chain in chains if chain.name in targets.OF_STANDALONE]
    for chain in again:
        chain.answers()
    with_many(tombolo, again, "fresh", book)
    say("memory with many names")


def with_many(tombolo, chains, column, book):
    book.note("memory", "agent", {column: resident(tombolo.pid("cluster-3 agent"))})
    for chain in chains:
        if chain.name in targets.OF_STANDALONE:
            measure.memory(chain, column, book)


main()
