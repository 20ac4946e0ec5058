"""What is to be reached, as ratios within one run."""

from statistics import median

# ztunnel can't be built from a package registry, so it has no chain here. What its double tunnel took, as multiples of what `envoy2-connect` took in the run that
# measured both (docs/performance.md): processor time of a request and of a GiB, connections a second.
DOUBLE_TUNNEL = {"cpu": 2.375, "cpu_gib": 1.69, "rate": 0.133}
# Rows of the table of memory.
GATEWAYS = ["tombolo2 egress", "tombolo2 ingress"]
OF_STANDALONE = ["tombolo3", "tombolo4"]  # chains whose gateways have the many names
WITH_NAMES = ["tombolo3 sidecar", "tombolo3 egress", "tombolo3 ingress"]


class Value:
    """What is worked out of what was measured: `at(book, round)`, of the medians where there is no round; none where it was not measured."""

    def __init__(self, made, *of):
        self.made, self.of = made, of

    def at(self, book, turn=None):
        parts = [one.at(book, turn) for one in self.of]
        return None if None in parts else self.made(*parts)

    def rounds(self, book):
        return max((one.rounds(book) for one in self.of), default=0)


class Of(Value):
    """A figure of the book. What was measured once stands for every round."""

    def __init__(self, measure, row, column):
        self.key = measure, row, column

    def at(self, book, turn=None):
        values = book.rounds(*self.key)
        if turn is None:
            return median(values) if values else None
        return values[turn] if turn < len(values) else values[0] if len(values) == 1 else None

    def rounds(self, book):
        return len(book.rounds(*self.key))


class Target:
    def __init__(self, what, beside, ours, theirs, most=None, least=None):
        self.what, self.beside, self.ours, self.theirs, self.most, self.least = what, beside, ours, theirs, most, least

    def ratios(self, book):
        """The ratio of the medians, then those of the rounds; nothing where it was not measured."""
        def ratio(turn):
            ours, theirs = self.ours.at(book, turn), self.theirs.at(book, turn)
            return None if ours is None or not theirs or theirs <= 0 else ours / theirs
        first = ratio(None)
        if first is None:
            return []
        count = max(self.ours.rounds(book), self.theirs.rounds(book))
        return [first, *filter(lambda found: found is not None, map(ratio, range(count)))]

    def met(self, ratio):
        return ratio <= self.most if self.most is not None else ratio >= self.least


def _scaled(factor, value):
    return Value(lambda found: factor * found, value)


def _figure(what, ours, most):
    return Target(what, None, ours, Value(lambda: 1.0), most=most)


def targets():
    cpu = lambda row: Of("keepalive", row, "cpu")
    rate = lambda row: Of("connections", row, "rate")
    added = lambda row: Value(lambda one, floor: one - floor, Of("paced", row, "p99"), Of("paced", "direct", "p99"))
    tunnel = lambda column, value: (
        f"ztunnel's double tunnel, as {DOUBLE_TUNNEL[column]} × envoy2-connect", _scaled(DOUBLE_TUNNEL[column], value))
    pair, three, four = "envoy2-connect", "envoy3-connect", "envoy4-http"
    all_of = [
        Target("pair: proxy CPU of a request", pair, cpu("tombolo2"), cpu(pair), most=0.7),
        Target("chain of three: proxy CPU of a request", three, cpu("tombolo3"), cpu(three), most=0.6),
        Target("chain of four: proxy CPU of a request", four, cpu("tombolo4"), cpu(four), most=0.25),
        Target("chain of four: proxy CPU of a request", tunnel("cpu", cpu(pair))[0], cpu("tombolo4"), tunnel("cpu", cpu(pair))[1], most=0.8),
        Target("pair: new connections a second", pair, rate("tombolo2"), rate(pair), least=2),
        Target("chain of three: new connections a second", three, rate("tombolo3"), rate(three), least=2),
        Target("chain of four: new connections a second", tunnel("rate", rate(pair))[0], rate("tombolo4"), tunnel("rate", rate(pair))[1], least=8),
    ]
    for what, ours, theirs in (("pair", "tombolo2", pair), ("chain of three", "tombolo3", three), ("chain of four", "tombolo4", four)):
        all_of.append(Target(f"{what}: p99 added at 1,000 requests/s", theirs, added(ours), added(theirs), most=0.7))
    for measure, streams in (("stream", "one stream"), ("streams", "four streams")):
        bulk = lambda row, measure=measure: Of(measure, row, "cpu_gib")
        what = lambda chain, streams=streams: f"{chain}: proxy CPU of a GiB, {streams}"
        double, of_double = tunnel("cpu_gib", bulk(pair))
        all_of += [
            Target(what("pair"), f"the better of envoy2-tls and {pair}", bulk("tombolo2"), Value(min, bulk("envoy2-tls"), bulk(pair)), most=0.8),
            Target(what("chain of three"), three, bulk("tombolo3"), bulk(three), most=0.8),
            Target(what("chain of four"), double, bulk("tombolo4"), of_double, most=0.8),
        ]
    memory = lambda column, rows: Value(lambda *all_found: max(all_found), *(Of("memory", row, column) for row in rows))
    grown = [Value(lambda more, less: more - less, Of("memory", row, "open"), Of("memory", row, "idle")) for row in GATEWAYS]
    return all_of + [
        _figure("gateway, idle: MiB", memory("idle", GATEWAYS), 8),
        _figure("gateway, 1,000 connections: MiB more", Value(lambda *all_found: max(all_found), *grown), 5),
        _figure("gateway, 10,000 names: MiB", Value(max, memory("many", WITH_NAMES), memory("fresh", WITH_NAMES)), 20),
        _figure("agent, 10,000 names: MiB", Value(max, Of("memory", "agent", "many"), Of("memory", "agent", "fresh")), 30),
        _figure("DNS: CPU s of 1,000,000 answers", Of("names", "tombolo", "cpu_million"), 5),
        _figure("DNS: p99 ms at 2,000 questions/s", Of("names", "tombolo", "p99"), 0.3),
    ]
